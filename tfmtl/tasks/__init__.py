"""What a task is: its name, head, loss, metrics and weight."""

from tfmtl.tasks.tasks import Binary, Regression, Task, compile_arguments

__all__ = ["Binary", "Regression", "Task", "compile_arguments"]
