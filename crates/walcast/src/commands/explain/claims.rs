//! The claims of a token, as a file says them.

use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;
use walcast_filter::Claims;

use crate::output::Failure;

/// What is expected, to be copied.
const EXPECTED: &str =
    "expected are the claims of a token, a JSON object such as {\"sub\": \"ann\", \"role\": \"customer\"}";

/// The text of the file, or of standard input for `-`, and what it says.
pub(super) fn read(path: &Path) -> Result<(String, Claims), Failure> {
    let place = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
    let wrong = |what: &str, hint: String| Failure::usage(format!("--as: {place} {what}")).hint(Some(hint));
    let text = text_of(path)
        .map_err(|error| wrong(&format!("cannot be read: {error}"), format!("name a file; {EXPECTED}")))?;
    let expected = || EXPECTED.to_owned();
    match serde_json::from_str(&text) {
        Ok(Value::Object(_)) => {}
        Ok(other) => return Err(wrong(&format!("is {}, and no JSON object", kind(&other)), expected())),
        Err(_) if text.trim().is_empty() => return Err(wrong("is empty", expected())),
        Err(_) if is_token(&text) => {
            let hint = format!("its middle part, decoded, is what is wanted here; {EXPECTED}");
            return Err(wrong("is a token, and not the claims of one", hint));
        }
        Err(error) => {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            let (line, column) = (error.line(), error.column());
            return Err(wrong(&format!("is not JSON: line {line}, column {column}: {message}"), expected()));
        }
    }
    let claims = Claims::parse(&text).map_err(|error| wrong(&format!("is not good: {error}"), expected()))?;
    Ok((text, claims))
}

fn text_of(path: &Path) -> io::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Three parts in the letters of base64url (RFC 7519).
fn is_token(text: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    let parts: Vec<&str> = text.trim().split('.').collect();
    parts.len() == 3 && parts[0].starts_with("ey") && parts.into_iter().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_what_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claims.json");
        let said = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            read(&path).map(|(text, _)| text).map_err(|failure| failure.message)
        };
        let good = r#"{"sub": "ann", "role": "customer"}"#;
        assert_eq!(said(good.as_bytes()).unwrap(), good);
        for (text, what) in [
            (
                &b"{\"sub\": \"ann\",\n \"role\": customer}"[..],
                "is not JSON: line 2, column 10: expected value",
            ),
            (b"{\"sub\": \"ann\"", "is not JSON: line 1, column 13: EOF while parsing an object"),
            (b"[1]", "is a list, and no JSON object"),
            (b"\"ann\"", "is a string, and no JSON object"),
            (b" \n", "is empty"),
            (b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln\n", "is a token, and not the claims of one"),
            (b"\xff", "cannot be read: stream did not contain valid UTF-8"),
        ] {
            let told = said(text).unwrap_err();
            assert!(told.contains(&format!("{} {what}", path.display())), "{told}");
            assert!(told.contains("\nhint: ") && told.contains(good), "{told}");
        }
        let gone = read(&folder.path().join("nowhere.json")).unwrap_err().message;
        assert!(gone.contains("nowhere.json cannot be read: ") && gone.contains(good), "{gone}");
    }
}
