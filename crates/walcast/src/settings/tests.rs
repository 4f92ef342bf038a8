use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use walcast_replication::publication::Selection;

use super::key::{KEYS, Kind};
use super::{LogFormat, ServeSettings, Sources};

fn sources(flags: &[(&'static str, &str)], variables: &[(&str, &str)], file: &str) -> Sources {
    let flags = flags.iter().map(|(flag, text)| (*flag, vec![(*text).to_owned()]));
    // A user, so that nothing depends on who runs the tests.
    let mut environment: BTreeMap<String, String> = BTreeMap::from([("PGUSER".into(), "tester".into())]);
    environment.extend(variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
    let mut sources = Sources::of(flags.collect(), environment);
    sources.read_file(Path::new("walcast.toml"), file);
    sources
}

fn load(flags: &[(&'static str, &str)], variables: &[(&str, &str)], file: &str) -> ServeSettings {
    ServeSettings::load(&sources(flags, variables, file)).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(flags: &[(&'static str, &str)], variables: &[(&str, &str)], file: &str) -> Vec<String> {
    let mistakes = ServeSettings::load(&sources(flags, variables, file)).expect_err("something is wrong");
    mistakes.0.iter().map(ToString::to_string).collect()
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file = "slot = 'from_file'\nheartbeat = '1s'\nfeed_memory = '1MiB'\n";
    let variables = [("WALCAST_SLOT", "from_variable"), ("WALCAST_HEARTBEAT", "2s")];
    let settings = load(&[("slot", "from_flag")], &variables, file);
    assert_eq!(settings.slot.name, "from_flag");
    assert_eq!(settings.broadcast.heartbeat, Duration::from_secs(2));
    assert_eq!(settings.feed.memory_bytes_max, 1 << 20);
    assert_eq!(settings.publication.name, "walcast");
    assert_eq!(settings.entrance.listen[0].to_string(), "127.0.0.1:4700");
}

#[test]
fn the_database_falls_back_to_database_url_and_then_to_libpq_variables() {
    let own = ("WALCAST_DATABASE_URL", "postgresql://a@one/db1");
    let usual = ("DATABASE_URL", "postgresql://a@two/db2");
    let libpq = [("PGHOST", "three"), ("PGDATABASE", "db3")];
    let database =
        |variables: &[(&str, &str)], file| load(&[], variables, file).database.database().to_owned();
    assert_eq!(database(&[own, usual, libpq[0], libpq[1]], ""), "db1");
    assert_eq!(database(&[usual, libpq[0], libpq[1]], "database_url = 'postgresql://a@four/db4'"), "db4");
    assert_eq!(database(&[usual, libpq[0], libpq[1]], ""), "db2");
    assert_eq!(database(&libpq, ""), "db3");
    assert_eq!(database(&[], ""), "tester");
    assert_eq!(load(&[], &[usual], "").history.database(), "db2");
    let apart = load(&[("history-url", "postgresql://a@five/db5")], &[usual], "");
    assert_eq!((apart.database.database(), apart.history.database()), ("db2", "db5"));
}

#[test]
fn every_mistake_is_reported_in_one_run_with_its_place() {
    let flags = [
        ("listen", "localhost"),
        ("database-url", "postgresql://u:hunter2@h:port/db"),
        ("all-tables", "true"),
        ("snapshots-max", "0"),
    ];
    let variables = [("WALCAST_FEED_MEMORY", "lots"), ("WALCAST_HEARTBEET", "1s"), ("WALCAST_TEST_PG", "14")];
    let file = "heartbeat = 10\nslot = 'Bad-Slot'\n\nfeed_memmory = '1MiB'\ntables = ['public.a', 'b']\nno_manage = 'x'\nlog_format = [1]\n";
    let found = mistakes(&flags, &variables, file);
    let expected = [
        "walcast.toml:4: feed_memmory: there is no such setting; did you mean feed_memory?",
        "WALCAST_HEARTBEET: there is no such setting; did you mean WALCAST_HEARTBEAT?",
        "walcast.toml:2: slot: \"Bad-Slot\": expected a slot name: 1 to 63 of a-z, 0-9 and _",
        "walcast.toml:5: tables: \"b\": expected schema.table",
        "--all-tables: cannot be used together with walcast.toml:5: tables",
        "walcast.toml:6: no_manage: expected true or false",
        "WALCAST_FEED_MEMORY: \"lots\": expected a size such as 64KiB, 64MiB, 4GiB, or a number of bytes",
        "--listen: \"localhost\": expected an IP address with a port such as 127.0.0.1:4700, 0.0.0.0:4700 or [::1]:4700, or unix:/path",
        "walcast.toml:1: heartbeat: \"10\": expected a duration with its unit such as 250ms, 10s, 5min, 2h",
        "--snapshots-max: \"0\": expected a whole number from 1",
        "walcast.toml:7: log_format: expected a string, found array",
    ];
    let others: Vec<&String> = found.iter().filter(|line| !line.starts_with("--database-url: ")).collect();
    assert_eq!(others, expected, "in the order of the settings");
    assert!(found.iter().any(|line| line.starts_with("--database-url: ")), "{found:#?}");
    assert!(found.iter().all(|line| !line.contains("hunter2")), "{found:#?}");
    assert_eq!(found.len(), expected.len() + 1, "{found:#?}");
}

#[test]
fn a_file_that_is_no_toml_is_a_mistake_with_its_line_beside_the_others() {
    let found = mistakes(&[("slot", "Ä")], &[], "slot = 'a'\nlisten = \n");
    assert!(found[0].starts_with("walcast.toml:2: not TOML: "), "{found:?}");
    assert!(found[1].starts_with("--slot: "), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn tables_come_as_a_list_in_every_source() {
    let listed = |settings: ServeSettings| match settings.publication.selection {
        Selection::Listed(tables) => tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    };
    assert_eq!(listed(load(&[], &[("WALCAST_TABLES", "public.a, app.b")], "")), "public.a app.b");
    assert_eq!(listed(load(&[], &[], "tables = ['public.a', 'app.b']")), "public.a app.b");
    assert_eq!(listed(load(&[], &[], "")), "UserTables");
    assert_eq!(listed(load(&[("all-tables", "true")], &[], "")), "ForAllTables");
}

#[test]
fn the_defaults_that_the_help_shows_are_those_in_force() {
    // Without it, what is about tokens is a mistake.
    let jwt = ("jwt-secret", SECRET);
    let unset = load(&[jwt], &[], "");
    let mut written: Vec<(&'static str, &str)> =
        KEYS.iter().filter(|key| !key.default.is_empty()).map(|key| (key.flag, key.default)).collect();
    written.push(jwt);
    assert_eq!(format!("{:?}", load(&written, &[], "")), format!("{unset:?}"));
    assert_eq!((unset.log.filter, unset.log.format), (None, LogFormat::Human));
}

#[test]
fn every_setting_reaches_its_place() {
    for key in KEYS {
        let beside = match key.flag {
            "jwt-audience" | "jwt-issuer" | "jwt-leeway" | "jwt-role-claim" | "jwt-default-role"
            | "anonymous-role" | "policies" => vec![("jwt-secret", SECRET)],
            _ => Vec::new(),
        };
        let unset = format!("{:?}", load(&beside, &[], ""));
        let other = match (key.flag, key.kind, key.default) {
            ("database-url" | "history-url", ..) => "postgresql://x@elsewhere/y",
            ("listen" | "admin-listen", ..) => "[::1]:9",
            ("jwt-secret", ..) => SECRET,
            ("jwt-jwks-url", ..) => "https://id.example/keys",
            ("allowed-origins", ..) => "https://a.b",
            ("trusted-proxies", ..) => "10.0.0.0/8",
            ("log-format", ..) => "json",
            ("log", ..) => "debug",
            (_, Kind::List, _) => "a.b",
            (_, Kind::Switch, _) => "true",
            ("wal-budget-policy", ..) => "drop_slot",
            ("on-hole", ..) => "start-over",
            (_, _, "off") => "77MiB",
            (_, _, default) if default.ends_with('B') => "77MiB",
            (_, _, default) if default.parse::<u64>().is_ok() => "77",
            (_, _, default) if default.ends_with(['s', 'n', 'd']) => "77s",
            _ => "seventy_seven",
        };
        let mut given = vec![(key.flag, other)];
        match key.flag {
            "tls-cert-file" => given.push(("tls-key-file", "k")),
            "tls-key-file" => given.push(("tls-cert-file", "c")),
            _ => {}
        }
        given.extend(beside);
        let set = format!("{:?}", load(&given, &[], ""));
        assert_ne!(set, unset, "--{} changes nothing", key.flag);
    }
}

/// A secret that is long enough.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn nobody_is_let_in_without_authentication_from_elsewhere_by_mistake() {
    let refused = |flags: &[(&'static str, &str)]| mistakes(flags, &[], "").join("\n");
    for address in ["0.0.0.0:4700", "[::]:4700", "192.168.1.1:4700"] {
        let found = refused(&[("listen", address)]);
        assert!(found.contains(address) && found.contains("insecure"), "{found}");
        load(&[("listen", address), ("insecure", "true")], &[], "");
        load(&[("listen", address), ("jwt-secret", SECRET)], &[], "");
    }
    for address in ["127.0.0.1:4700", "127.0.0.2:1", "[::1]:4700", "unix:/run/walcast.sock"] {
        load(&[("listen", address)], &[], "");
    }
    let three = mistakes(&[], &[], "listen = ['127.0.0.1:1', '0.0.0.0:2', '0.0.0.0:3']");
    assert!(
        three.len() == 2 && three[0].contains("0.0.0.0:2") && three[1].contains("0.0.0.0:3"),
        "{three:?}"
    );
    assert_eq!(load(&[], &[], "listen = ['127.0.0.1:1', 'unix:/s']").entrance.listen.len(), 2);
}

#[test]
fn authentication_is_on_or_off_and_never_half() {
    let refused = |flags: &[(&'static str, &str)]| mistakes(flags, &[], "").join("\n");
    let short = refused(&[("jwt-secret", "hunter2")]);
    assert!(short.contains("32 bytes") && !short.contains("hunter2"), "{short}");
    let two = refused(&[("jwt-secret-file", "a"), ("jwt-pem-file", "b")]);
    assert!(two.contains("--jwt-pem-file: cannot be used together with --jwt-secret-file"), "{two}");
    assert!(refused(&[("jwt-audience", "app")]).contains("not looked at"));
    assert!(refused(&[("anonymous-role", "guest")]).contains("not looked at"));
    assert!(refused(&[("jwt-jwks-url", "http://id.example/keys")]).contains("https"));
    assert!(refused(&[("tls-cert-file", "c")]).contains("tls_key_file"));
    assert!(refused(&[("allowed-origins", "app.example")]).contains("https://"));
    assert!(refused(&[("trusted-proxies", "proxy")]).contains("10.0.0.0/8"));
}

/// Whatever stands in the file, its settings are read, or every mistake is said with its place.
#[test]
fn files_of_any_text_are_read_or_their_mistakes_are_said() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/configuration");
    let names: Vec<String> = KEYS.iter().map(|key| format!("\n{} = ", key.name())).collect();
    let mut words: Vec<&str> = names.iter().map(String::as_str).collect();
    words.extend([
        "'",
        "\"\"\"",
        "true",
        "[]",
        "{}",
        "\n[",
        "postgresql://",
        "host=",
        "18446744073709551616GiB",
        "999999999999d",
    ]);
    walcast_corpus::Corpus::read(folder).words(&words).check(|data| {
        let Ok(text) = std::str::from_utf8(data) else { return };
        let sources = sources(&[], &[], text);
        match ServeSettings::load(&sources) {
            Ok(settings) => assert!(!settings.slot.name.is_empty() && settings.feed.memory_bytes_max > 0),
            Err(mistakes) => {
                assert!(!mistakes.0.is_empty());
                assert!(mistakes.0.iter().all(|mistake| !mistake.to_string().is_empty()));
            }
        }
    });
}
