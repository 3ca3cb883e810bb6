"""What a task is: its name, head, loss, metrics and weight."""

from tfmtl.tasks.tasks import Binary, Position, Regression, Task, compile_arguments

__all__ = ["Binary", "Position", "Regression", "Task", "compile_arguments"]
