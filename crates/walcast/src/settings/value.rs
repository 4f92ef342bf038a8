//! The texts of values.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use walcast_model::RelationName;
use walcast_protocol::TablePattern;
use walcast_replication::WalBudgetPolicy;

use super::entrance::ListenAddress;
use super::{LogFormat, OnHole};

/// A number and its unit.
fn quantity(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim()))
}

/// `250ms`, `10s`, `5min`, `2h`, `1d`; more than nothing.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let error = || "expected a duration with its unit such as 250ms, 10s, 5min, 2h".to_owned();
    let (number, unit) = quantity(text).ok_or_else(error)?;
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "min" | "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(error()),
    };
    let duration = Duration::try_from_secs_f64(number * seconds).map_err(|_| error())?;
    if duration < Duration::from_millis(1) { Err("expected at least 1ms".to_owned()) } else { Ok(duration) }
}

/// `4096`, `64KiB`, `64MiB`, `4GiB`; `kB`, `MB`, `GB` count in thousands, as their names say.
pub(crate) fn bytes(text: &str, least: u64) -> Result<u64, String> {
    let error = || "expected a size such as 64KiB, 64MiB, 4GiB, or a number of bytes".to_owned();
    let (number, unit) = quantity(text).ok_or_else(error)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(error()),
    };
    let bytes = number * factor as f64;
    if bytes >= u64::MAX as f64 {
        return Err("too large".to_owned());
    }
    let bytes = bytes as u64;
    if bytes < least { Err(format!("expected at least {least} bytes")) } else { Ok(bytes) }
}

/// What `parse` reads, or `off`.
pub(crate) fn or_off<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    if text == "off" {
        return Ok(None);
    }
    parse(text).map(Some).map_err(|expected| format!("{expected}, or off"))
}

pub(crate) fn wal_budget_policy(text: &str) -> Result<WalBudgetPolicy, String> {
    match text {
        "warn" => Ok(WalBudgetPolicy::Warn),
        "drop_slot" => Ok(WalBudgetPolicy::DropSlot),
        _ => Err("expected warn or drop_slot".to_owned()),
    }
}

/// From 1.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number from 1".to_owned()),
        Ok(count) => Ok(count),
    }
}

pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" | "" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// An IP address or `localhost` with a port, or `unix:` and a path. Other names are not looked up: one may have several
/// addresses, or another one tomorrow, and which of them are this machine's own decides who is let in.
pub(crate) fn listen_address(text: &str) -> Result<ListenAddress, String> {
    let expected = "expected an IP address with a port such as 127.0.0.1:4700, 0.0.0.0:4700 or [::1]:4700, or unix:/path";
    let port = |port: &str| port.parse::<u16>().ok();
    match (text.strip_prefix("unix:"), text.rsplit_once(':')) {
        (Some(""), _) => Err(expected.to_owned()),
        (Some(path), _) => Ok(ListenAddress::Unix(path.into())),
        (None, Some((name, number))) if name.eq_ignore_ascii_case("localhost") && port(number).is_some() => {
            let address = (Ipv4Addr::LOCALHOST, port(number).unwrap_or_default());
            Ok(ListenAddress::Tcp(address.into()))
        }
        _ => text.parse().map(ListenAddress::Tcp).map_err(|_| match text.rsplit_once(':') {
            Some((name, number))
                if port(number).is_some() && name.starts_with(|c: char| c.is_alphabetic()) =>
            {
                format!("{name} is a name, and names but localhost are not looked up; {expected}")
            }
            _ => expected.to_owned(),
        }),
    }
}

/// An origin as browsers write it, or `*`.
pub(crate) fn origin(text: &str) -> Result<String, String> {
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' '])
    });
    if text == "*" || is_origin {
        return Ok(text.to_owned());
    }
    Err("expected an origin such as https://app.example.org, without a path, or *".to_owned())
}

/// Any text but none.
pub(crate) fn text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected a text".to_owned()) } else { Ok(text.to_owned()) }
}

/// A name in Postgres.
pub(crate) fn name(text: &str, bytes_max: usize) -> Result<String, String> {
    let fits = (1..=bytes_max).contains(&text.len()) && !text.contains('\0');
    if fits { Ok(text.to_owned()) } else { Err(format!("expected a name of 1 to {bytes_max} bytes")) }
}

/// A slot's name, by the rules of `ReplicationSlotValidateName` in Postgres's `slot.c`.
pub(crate) fn slot(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain && (1..=63).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err("expected a slot name: 1 to 63 of a-z, 0-9 and _".to_owned())
}

pub(crate) fn table(text: &str) -> Result<RelationName, String> {
    text.parse().map_err(|_| "expected schema.table".to_owned())
}

pub(crate) fn table_pattern(text: &str) -> Result<TablePattern, String> {
    text.parse().map_err(|_| "expected schema.table, schema.* or *".to_owned())
}

pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("expected the path of a file".to_owned()) } else { Ok(PathBuf::from(text)) }
}

pub(crate) fn on_hole(text: &str) -> Result<OnHole, String> {
    match text {
        "stop" => Ok(OnHole::Stop),
        "start-over" | "start_over" => Ok(OnHole::StartOver),
        _ => Err("expected stop or start-over".to_owned()),
    }
}

pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            Err(format!("expected a level or directives such as info,walcast_replication=debug: {error}"))
        }
    }
}

pub(crate) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err("expected human or json".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, duration, listen_address, slot};

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("5 min"), Ok(Duration::from_secs(300)));
        for text in ["", "10", "s", "-1s", "0s", "1 fortnight", "1e400s", "99999999999999999999d", "1.2.3s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_are_in_bytes_unless_they_say_otherwise() {
        assert_eq!(bytes("4096", 0), Ok(4096));
        assert_eq!(bytes("64MiB", 0), Ok(64 << 20));
        assert_eq!(bytes("1.5 GiB", 0), Ok(3 << 29));
        assert_eq!(bytes("1MB", 0), Ok(1_000_000));
        for text in ["", "64M", "MiB", "-1", "99999999999TiB", "1.2.3"] {
            assert!(bytes(text, 0).is_err(), "{text:?}");
        }
        assert_eq!(bytes("1KiB", 2048), Err("expected at least 2048 bytes".to_owned()));
    }

    #[test]
    fn localhost_is_an_address_and_other_names_are_told_so() {
        for (text, expected) in [
            ("localhost:4222", "127.0.0.1:4222"),
            ("LOCALHOST:1", "127.0.0.1:1"),
            ("[::1]:4700", "[::1]:4700"),
            ("unix:/run/w.sock", "unix:/run/w.sock"),
        ] {
            assert_eq!(listen_address(text).unwrap().to_string(), expected);
        }
        let name = listen_address("db.example.org:4700").unwrap_err();
        assert!(
            name.starts_with(
                "db.example.org is a name, and names but localhost are not looked up; expected an IP"
            ),
            "{name}"
        );
        for text in ["localhost", "localhost:", "localhost:http", "4700", ":4700", "unix:", "::1:4700"] {
            assert!(listen_address(text).unwrap_err().starts_with("expected an IP address"), "{text}");
        }
    }

    #[test]
    fn slot_names_follow_postgres() {
        assert!(slot("walcast_2").is_ok());
        for text in ["", "Walcast", "wal-cast", &"a".repeat(64)] {
            assert!(slot(text).is_err(), "{text:?}");
        }
    }
}
