//! How large a filter may be. What is larger is refused with the kind of [`Refusal`](crate::Refusal) that is named
//! after the limit; nothing is cut.

/// Bytes of a filter's text.
pub const TEXT_BYTES_MAX: usize = 16 << 10;

/// How deep parentheses and `NOT` may be nested.
pub const DEPTH_MAX: usize = 32;

/// Conditions of a filter: what `AND` and `OR` join.
pub const CONDITIONS_MAX: usize = 256;

/// Operators of a filter, `AND` and `OR` among them, without the commas of lists.
pub const OPERATORS_MAX: usize = 1024;

/// Values of one `IN` list or array.
pub const LIST_ITEMS_MAX: usize = 1000;

/// Bytes of a `LIKE` pattern.
pub const PATTERN_BYTES_MAX: usize = 1 << 10;

/// Digits of a number when it is written without an exponent.
pub const NUMBER_DIGITS_MAX: usize = 4096;

/// Steps of a jsonb path (`column -> 'a' -> 0 ->> 'b'` has three).
pub const PATH_STEPS_MAX: usize = 16;

/// Depth of a jsonb literal, and of claims.
pub const JSON_DEPTH_MAX: usize = 32;

/// Bytes of an identifier in Postgres (`NAMEDATALEN` - 1).
pub(crate) const NAME_BYTES_MAX: usize = 63;
