"""implicit_attr: training dynamics and the robustness of explanations."""

__version__ = '0.1.0'
