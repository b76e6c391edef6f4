from typing import Any

from absl import flags

def DEFINE_config_file(
  name: str, default: str | None = ..., help_string: str = ..., **args: Any
) -> flags.FlagHolder: ...
def get_config_filename(flag: flags.Flag) -> str: ...
