//! The password file (libpq chapter "The Password File").

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{ConnectionConfig, Host, HostAddress, Secret};

/// The result of looking into a passfile.
pub(crate) enum PassfileLookup {
    Found(Secret),
    /// No line for this server, database and user; or no file.
    Nothing,
    /// There is a file, but libpq's rule forbids its use. The text says why and what to do.
    Unusable(String),
}

impl ConnectionConfig {
    /// Looks for this host's password. Reads the file anew, so that a rotated password takes effect.
    pub(crate) fn passfile_lookup(&self, host: &Host) -> PassfileLookup {
        let Some(path) = &self.passfile else { return PassfileLookup::Nothing };
        match usable(path) {
            Ok(true) => {}
            Ok(false) => return PassfileLookup::Nothing,
            Err(problem) => return PassfileLookup::Unusable(problem),
        }
        let Ok(bytes) = std::fs::read(path) else {
            return PassfileLookup::Unusable(format!("the passfile {} cannot be read", path.display()));
        };
        // The default folders of the socket are listed as "localhost".
        let name = match &host.address {
            HostAddress::Default => "localhost".to_owned(),
            HostAddress::Socket(folder) => match folder.to_str() {
                Some("/var/run/postgresql" | "/tmp") => "localhost".to_owned(),
                _ => folder.to_string_lossy().into_owned(),
            },
            HostAddress::Tcp { name, .. } => name.clone(),
        };
        let port = host.port.to_string();
        let wanted = [name.as_str(), port.as_str(), self.database.as_str(), self.user.as_str()];
        let text = String::from_utf8_lossy(&bytes);
        let found = text.lines().find_map(|line| password_of(line, &wanted));
        found.map_or(PassfileLookup::Nothing, |password| PassfileLookup::Found(Secret::new(password)))
    }
}

/// Whether the file is there; an error when it is and others could read it.
fn usable(path: &Path) -> Result<bool, String> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(false) };
    if !metadata.is_file() {
        return Err(format!("the passfile {} is not a plain file", path.display()));
    }
    if metadata.mode() & 0o077 != 0 {
        let path = path.display();
        return Err(format!("the passfile {path} was ignored because others may read it; chmod 0600 {path}"));
    }
    Ok(true)
}

/// The password when the four fields before it match: `hostname:port:database:username:password`.
fn password_of(line: &str, wanted: &[&str; 4]) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line.trim_end_matches('\r');
    for want in wanted {
        let end = field_end(rest);
        let field = &rest[..end];
        if field != "*" && unescape(field) != *want {
            return None;
        }
        rest = rest[end..].strip_prefix(':')?;
    }
    let password = unescape(&rest[..field_end(rest)]);
    (!password.is_empty()).then_some(password)
}

/// Where the field ends: at a colon that no backslash stands before.
fn field_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ':' => return at,
            _ => {}
        }
    }
    text.len()
}

fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        text.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::password_of;

    #[test]
    fn a_line_matches_by_all_four_fields() {
        let wanted = ["db", "5432", "shop", "me"];
        assert_eq!(password_of("db:5432:shop:me:pw", &wanted).as_deref(), Some("pw"));
        assert_eq!(password_of("*:*:*:me:p\\:w\\\\x", &wanted).as_deref(), Some("p:w\\x"));
        for line in
            ["db:5433:*:*:pw", "# db:5432:shop:me:pw", "db:5432:shop:me:", "db:5432:shop", "", "\\*:*:*:*:pw"]
        {
            assert_eq!(password_of(line, &wanted), None, "{line}");
        }
        assert_eq!(password_of("a\\:b:1:d:u:pw", &["a:b", "1", "d", "u"]).as_deref(), Some("pw"));
    }
}
