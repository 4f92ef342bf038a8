//! The two forms of a connection string, taken apart: `postgresql://…` and `keyword = value …`.
//!
//! As in libpq's `conninfo_parse` and `conninfo_uri_parse`: what is not forbidden there is not forbidden here.
//! No error quotes a value, because a misplaced delimiter can make any part of a password look like one.

use super::{ConnectionStringError, keyword};

/// The keywords in the order in which they were given; of two with one name the later counts.
pub(crate) type Pairs = Vec<(&'static str, String)>;

/// Takes a connection string of either form apart.
pub(crate) fn parse(text: &str) -> Result<Pairs, ConnectionStringError> {
    match text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://")) {
        Some(rest) => parse_uri(rest),
        None if has_scheme(text) => Err(syntax(
            "a database URL begins with postgresql://, for instance postgresql://user@host:5432/database",
        )),
        None => parse_keyword_values(text),
    }
}

/// Whether it looks like a URL, and so is not meant as `keyword = value …`.
fn has_scheme(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.:".contains(c);
    text.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.chars().all(is_part))
}

fn syntax(problem: &'static str) -> ConnectionStringError {
    ConnectionStringError::Syntax(problem)
}

fn known(name: &str) -> Result<&'static str, ConnectionStringError> {
    keyword::find(name).map(|keyword| keyword.name).ok_or_else(|| {
        // Long names are not typing mistakes but something else that slipped in.
        ConnectionStringError::UnknownKeyword(name.chars().take(60).collect())
    })
}

fn parse_keyword_values(text: &str) -> Result<Pairs, ConnectionStringError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(syntax(
                "a keyword is not followed by \"=\" (the form is keyword=value, or postgresql://…)",
            ));
        };
        let (value, after) = take_value(after.trim_start())?;
        pairs.push((known(name)?, value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A value and what follows it: up to a space, or in single quotes; a backslash takes the next character as it is.
fn take_value(text: &str) -> Result<(String, &str), ConnectionStringError> {
    let (quoted, body) = text.strip_prefix('\'').map_or((false, text), |body| (true, body));
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            c if !quoted && c.is_ascii_whitespace() => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(syntax("a quoted value has no closing quote")) } else { Ok((value, "")) }
}

fn parse_uri(text: &str) -> Result<Pairs, ConnectionStringError> {
    let mut pairs = Vec::new();
    let authority_end = text.find('/').unwrap_or(text.len());
    let mut rest = text;
    // libpq looks for the end of the credentials before it looks at anything else.
    if let Some(at) = text[..authority_end].find('@') {
        let (user, password) = match text[..at].split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (&text[..at], None),
        };
        if !user.is_empty() {
            pairs.push(("user", decode(user)?));
        }
        if let Some(password) = password.filter(|password| !password.is_empty()) {
            pairs.push(("password", decode(password)?));
        }
        rest = &text[at + 1..];
    }
    let (hosts, ports, after) = take_hosts(rest)?;
    if hosts.iter().any(|host| !host.is_empty()) {
        pairs.push(("host", hosts.join(",")));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        pairs.push(("port", ports.join(",")));
    }
    let (path, query) = match after.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (after, None),
    };
    if let Some(database) = path.strip_prefix('/').filter(|database| !database.is_empty()) {
        pairs.push(("dbname", decode(database)?));
    }
    query.map_or(Ok(()), |query| parse_query(query, &mut pairs))?;
    Ok(pairs)
}

type Hosts<'a> = (Vec<String>, Vec<String>, &'a str);

fn take_hosts(mut rest: &str) -> Result<Hosts<'_>, ConnectionStringError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    loop {
        let host;
        if let Some(address) = rest.strip_prefix('[') {
            let end = address.find(']').ok_or_else(|| syntax("an IPv6 address has no closing \"]\""))?;
            if end == 0 {
                return Err(syntax("the IPv6 address between \"[\" and \"]\" is empty"));
            }
            host = &address[..end];
            rest = &address[end + 1..];
            if !rest.is_empty() && !rest.starts_with([':', '/', '?', ',']) {
                return Err(syntax("unexpected characters after the \"]\" of an IPv6 address"));
            }
        } else {
            let end = rest.find([':', '/', '?', ',']).unwrap_or(rest.len());
            (host, rest) = rest.split_at(end);
        }
        hosts.push(decode(host)?);
        let mut port = "";
        if let Some(after) = rest.strip_prefix(':') {
            let end = after.find(['/', '?', ',']).unwrap_or(after.len());
            (port, rest) = after.split_at(end);
        }
        ports.push(decode(port)?);
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok((hosts, ports, rest)),
        }
    }
}

fn parse_query(query: &str, pairs: &mut Pairs) -> Result<(), ConnectionStringError> {
    if query.is_empty() {
        return Ok(());
    }
    for parameter in query.split('&') {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(syntax("a parameter after \"?\" has no \"=\""));
        };
        if value.contains('=') {
            return Err(syntax("a parameter after \"?\" has more than one \"=\" (write %3D inside a value)"));
        }
        let (name, value) = (decode(name)?, decode(value)?);
        // The one spelling of JDBC that libpq understands.
        if name == "ssl" && value == "true" {
            pairs.push(("sslmode", "require".into()));
        } else {
            pairs.push((known(&name)?, value));
        }
    }
    Ok(())
}

fn decode(text: &str) -> Result<String, ConnectionStringError> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let number = digits
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match number {
            None => {
                return Err(syntax(
                    "\"%\" is not followed by two hexadecimal digits (write %25 for a \"%\")",
                ));
            }
            Some(0) => return Err(syntax("%00 is not allowed")),
            Some(number) => bytes.push(number),
        }
        rest = &after[2..];
    }
    String::from_utf8(bytes).map_err(|_| syntax("a percent-encoded part is not UTF-8"))
}

/// The inverse of [`decode`], for what may stand in an authority or a path.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
