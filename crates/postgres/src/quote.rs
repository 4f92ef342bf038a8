//! Quoting for the few statements that take no parameters.

/// An identifier as SQL text: always in double quotes, so that keywords and capitals survive.
///
/// A NUL cannot be part of an identifier and is left out, as it would end the statement.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// A string constant as SQL text, right whatever `standard_conforming_strings` is set to.
///
/// A NUL cannot be part of a string and is left out, as it would end the statement.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    // Needs the escape form only when there is a backslash; E'' reads it the same under both settings.
    if text.contains('\\') { format!(" E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

#[cfg(test)]
mod tests {
    use super::{quote_identifier, quote_literal};

    #[test]
    fn quotes_are_doubled_and_backslashes_escaped() {
        assert_eq!(quote_identifier("a\"B"), "\"a\"\"B\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), " E'a\\\\''b'");
    }
}
