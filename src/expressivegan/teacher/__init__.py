"""The teacher: a classifier that shows where it sees each class, and that guides training."""

from expressivegan.teacher.cam import CXR_CAM_Teacher, TeacherOutput, minmax, open_teacher, referenced

__all__ = ["CXR_CAM_Teacher", "TeacherOutput", "minmax", "open_teacher", "referenced"]
