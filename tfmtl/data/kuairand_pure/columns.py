"""Names: the columns of the examples by kind, the tasks, and the files' columns."""

HISTORY_LENGTH = 50
"""How many videos a stored history holds at most."""

MAX_TAGS = 3
"""How many tags a video has at most."""

# The files' columns that are taken as they are.
USER_NUMERIC = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
USER_STRING = (
    "user_active_degree",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
)
USER_INTEGER = (
    "is_live_streamer",
    "is_video_author",
    *(f"onehot_feat{i}" for i in range(18)),
)
VIDEO_NUMERIC = ("server_width", "server_height")
VIDEO_STRING = ("video_type", "upload_type")
VIDEO_INTEGER = ("author_id", "music_id", "music_type")
LOG_INTEGER = ("user_id", "video_id", "tab")

TIME_COLUMNS = ("date", "time_ms")
"""`int64`, when the exposure was: to split by, not for a model."""

NUMERIC_COLUMNS = (
    "video_duration",
    "video_age",
    "num_watched",
    *VIDEO_NUMERIC,
    *USER_NUMERIC,
)
"""`float32`, NaN where missing: seconds, days, videos, pixels, persons, days."""

INTEGER_COLUMNS = (*LOG_INTEGER, "hour", "day_of_week", *VIDEO_INTEGER, *USER_INTEGER)
"""`int64` categories, -1 where missing: ids and codes; Monday is 0."""

STRING_COLUMNS = VIDEO_STRING + USER_STRING
"""Categories as strings, empty where missing."""

HISTORIES = ("watched", "liked", "long_watched")
"""Videos that the user was shown, liked, viewed long before 2022-04-25."""

SEQUENCE_COLUMNS = {"tag": MAX_TAGS} | dict.fromkeys(HISTORIES, HISTORY_LENGTH)
"""Name to width, `int64`, padded with -1 at the end; histories most recent first."""

BINARY_TASKS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "profile_enter": "is_profile_enter",
    "hate": "is_hate",
}
"""Task to its column in the log."""

TASKS = (*BINARY_TASKS, "watch_time")
"""Labels, `float32`: 0 or 1, and the watch time in seconds."""

LAST_HISTORY_DATE = 20220424
FIRST_TEST_DATE = 20220505
