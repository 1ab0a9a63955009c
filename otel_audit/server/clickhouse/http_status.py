"""The HTTP status of an engine error: whose fault it is, so that a client knows whether to try again.

ClickHouse itself answers 500 to most of what a client gets wrong. Here 400 and 404 mean that the request is
wrong and will be wrong again, 408 that it took too long, 503 that it may go well later; 500 is ours.
"""

from __future__ import annotations

from typing import Final

from otel_audit.server.clickhouse import gate

_NOT_FOUND: Final = frozenset(
    {
        *(16, 46, 47, 50, 56, 60, 63, 81, 115, 139, 142, 152, 180, 192, 232, 251, 336, 372, 432, 444, 478),
        *(479, 492, 511, 548, 562, 582, 669, 674, 691, 701),
    }
)
"""Tables, columns, functions, types, formats, settings and the like that are named and are not there."""
_FORBIDDEN: Final = frozenset(
    {gate.ACCESS_DENIED, 164, 193, 194, 291, 358, 392, 446, 472, 482, 495, 512, 516, 620}
)
_LATER: Final = frozenset({173, 202, 203, 241, 242, 243, 252, 439, 745, 749, 762, 776, 777, 778})
"""Memory, space, threads or connections are short."""
_TOO_LARGE: Final = frozenset({229, 307})
_NOT_IMPLEMENTED: Final = frozenset({48, 401})
_TOO_SLOW: Final = frozenset({159, 160, 209, 718})
_WRONG: Final = frozenset(
    {
        *range(1, 5),
        *(6, 7, 8, 9, 10, 11, 12, 13, 15, 19, 20),
        *(25, 26, 27, 28, 32, 33, 34, 35, 36, 37, 38, 39, 41, 42, 43, 44, 51, 52, 53, 55, 57, 58, 59, 62),
        *(68, 69, 70, 72, 73, 78, 79, 80, 82, 83, 84, 85, 89, 90, 92, 107, 108, 113, 116, 117, 119),
        *(120, 121, 122, 123, 124, 125, 127, 128, 129, 130, 131, 133, 134, 135, 141, 145, 153, 158),
        *(161, 162, 165, 166, 167, 168, 169, 170, 174, 179, 181, 182, 183, 184, 186, 187, 190, 191),
        *(196, 199, 206, 207, 208, 211, 212, 213, 215, 216, 217, 223, 248, 258, 260, 262, 264, 269, 277, 280),
        *(282, 283, 284, 287, 288, 290, 306, 309, 321, 344, 346),
        *(349, 352, 353, 354, 360, 366, 370, 373, 374, 376),
        *(377, 378, 381, 386, 393, 394, 395, 396, 397, 398, 399, 403, 406, 407, 408, 417, 418, 419, 421, 422),
        *(427, 431, 433, 434, 435, 436, 437, 438, 440, 441, 442, 443, 447, 448, 450, 452, 455, 456, 457, 466),
        *(467, 469, 471, 474, 475, 476, 477, 480, 481, 487, 490, 491, 496, 498, 503, 507, 508, 524, 527),
        *(537, 538, 544, 545, 546, 549, 552, 554, 557, 558, 559, 561, 563, 565, 569, 570, 572, 577, 578, 581),
        *(583, 584, 585, 594, 596, 597, 609, 611, 616, 618, 621, 622, 623, 624, 626, 628, 629, 632, 636, 637),
        *(638, 645, 651, 652, 653, 654, 675, 676, 690, 703, 704, 708, 715, 719, 721, 723, 726, 728, 729, 731),
        *(735, 744, 748, 756, 760, 768, 772, 779),
    }
)
"""What no server could do: syntax, types, arguments, values, formats; data that are not what they claim."""


def http_status(code: int) -> int:
    """Return the status for an error code of ClickHouse; 500 for those that are not the client's fault."""
    for codes, status in _STATUSES:
        if code in codes:
            return status
    return 500


_STATUSES: Final = (
    (_NOT_FOUND, 404),
    (_FORBIDDEN, 403),
    (_LATER, 503),
    (_TOO_LARGE, 413),
    (_NOT_IMPLEMENTED, 501),
    (_TOO_SLOW, 408),
    (_WRONG, 400),
)
