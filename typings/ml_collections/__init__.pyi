"""ConfigDict as it is used here: attributes of any type; it ships no types."""

from typing import Any

class ConfigDict(dict[str, Any]):
  def __getattr__(self, name: str) -> Any: ...
  def __setattr__(self, name: str, value: Any) -> None: ...
