"""One value: made portable, frozen, compared, written as text. The only place that converts values.

A *portable* value is what a record may carry: ``None``, ``bool``, ``int`` of 64 bits, finite ``float``,
``str``, and lists and string-keyed dicts of these, each of exactly that class, never of a subclass. A
*frozen* value is one nobody can change afterwards: a plain immutable one, :class:`Encoded`, the JSON of a
mutable one at the moment it was seen, :class:`~otel_audit.large_values.Cut` where that is too long, or
:class:`Opaque`. Captured writes hold frozen values until their transaction ends.

Whatever a value is, nothing here raises: what cannot be converted costs detail, never the record.
"""

from otel_audit.values.conversion import MAX_DEPTH as MAX_DEPTH
from otel_audit.values.conversion import MAX_PARTS as MAX_PARTS
from otel_audit.values.conversion import Conversion as Conversion
from otel_audit.values.conversion import Portable as Portable
from otel_audit.values.conversion import portable as portable
from otel_audit.values.conversion import portable_type as portable_type
from otel_audit.values.conversion import shorter as shorter
from otel_audit.values.conversion import text as text
from otel_audit.values.freezing import freeze as freeze
from otel_audit.values.freezing import freeze_json as freeze_json
from otel_audit.values.freezing import freeze_known as freeze_known
from otel_audit.values.freezing import freeze_structures as freeze_structures
from otel_audit.values.freezing import is_long as is_long
from otel_audit.values.freezing import is_written as is_written
from otel_audit.values.freezing import shortened as shortened
from otel_audit.values.frozen import FROZEN as FROZEN
from otel_audit.values.frozen import Encoded as Encoded
from otel_audit.values.frozen import Frozen as Frozen
from otel_audit.values.frozen import Opaque as Opaque
from otel_audit.values.frozen import same as same
from otel_audit.values.recorded import RECORDED as RECORDED
from otel_audit.values.recorded import key_text as key_text
from otel_audit.values.recorded import key_texts as key_texts
from otel_audit.values.recorded import record_value as record_value
from otel_audit.values.recorded import record_values as record_values
from otel_audit.values.recorded import weigh_plain as weigh_plain
from otel_audit.values.scalars import ATOMS as ATOMS
from otel_audit.values.scalars import instant_text as instant_text
from otel_audit.values.scalars import plain_text as plain_text
from otel_audit.values.scalars import search_binary as search_binary
