use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::{any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy};

use super::{
    AuthMethod, ChannelBindingMode, ConnectionConfig, ConnectionStringError, HostAddress, RootCertificates,
    SslMode, TargetSession,
};

fn parse_in(text: &str, variables: &[(&str, &str)]) -> Result<ConnectionConfig, ConnectionStringError> {
    let env = |name: &str| {
        variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    };
    ConnectionConfig::parse(text, &env)
}

fn parse(text: &str) -> ConnectionConfig {
    parse_in(text, &[]).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    parse_in(text, &[]).expect_err(text).to_string()
}

fn places(config: &ConnectionConfig) -> Vec<String> {
    config.hosts.iter().map(ToString::to_string).collect()
}

fn password(config: &ConnectionConfig) -> Option<&str> {
    config.password.as_ref().map(super::Secret::reveal)
}

#[test]
fn both_forms_say_the_same() {
    let uri = parse("postgresql://me:s%2Fcret@db.example:5433/shop?connect_timeout=7&application_name=x%20y");
    let words = parse(
        "host=db.example port = 5433 user=me password='s/cret' dbname=shop connect_timeout=7 \
                       application_name='x y'",
    );
    assert_eq!(uri, words);
    assert_eq!((uri.user(), uri.database(), uri.server().as_str()), ("me", "shop", "db.example:5433"));
    assert_eq!(password(&uri), Some("s/cret"));
    assert_eq!(uri.connect_timeout, Some(Duration::from_secs(7)));
    assert_eq!(uri.application_name(), Some("x y"));
}

#[test]
fn several_hosts_keep_their_ports() {
    let config = parse("postgres://me@a:1,b,[::1]:3,%2Fvar%2Fpg/d");
    assert_eq!(places(&config), ["a:1", "b:5432", "[::1]:3", "/var/pg/.s.PGSQL.5432"]);
    assert_eq!(places(&parse("user=me host=a,b port=7")), ["a:7", "b:7"]);
    assert_eq!(places(&parse("user=me host=a,b port=7,")), ["a:7", "b:5432"]);
    assert_eq!(places(&parse("user=me host=, port=1,2"))[1], "the local socket, port 2");
    assert!(error("user=me host=a,b port=1,2,3").contains("host and port"));
    assert!(error("user=me host=a,b hostaddr=::1").contains("host and hostaddr"));
    let config = parse("user=me host=db.example hostaddr=10.0.0.1");
    let HostAddress::Tcp { name, address } = &config.hosts[0].address else { panic!() };
    assert_eq!(
        (name.as_str(), address.map(|address| address.to_string())),
        ("db.example", Some("10.0.0.1".into()))
    );
}

#[test]
fn quotes_and_backslashes_are_libpqs() {
    let config = parse(r"user = m\ e password='it\'s \\ \x' dbname=a\'b");
    assert_eq!((config.user(), config.database()), ("m e", "a'b"));
    assert_eq!(password(&config), Some(r"it's \ x"));
    assert!(error("user='me").contains("closing quote"));
    assert!(error("user").contains("\"=\""));
    assert!(error("user me=x").contains("\"=\""));
}

#[test]
fn what_is_not_said_comes_from_the_environment() {
    let variables = [
        ("PGHOST", "/run/pg"),
        ("PGPORT", "6000"),
        ("PGUSER", "env"),
        ("PGPASSWORD", "pw"),
        ("PGSSLMODE", "require"),
    ];
    let config = parse_in("", &variables).unwrap();
    assert_eq!(places(&config), ["/run/pg/.s.PGSQL.6000"]);
    assert_eq!((config.user(), config.database(), password(&config)), ("env", "env", Some("pw")));
    assert_eq!(config.ssl_mode(), SslMode::Require);
    let config = parse_in("postgres://me@db/shop?port=1", &variables).unwrap();
    assert_eq!((config.user(), config.server().as_str()), ("me", "db:1"));
    // Said, but empty: the default and not the environment.
    assert_eq!(parse_in("user=me dbname='' port=''", &variables).unwrap().database(), "me");
    let refused = parse_in("user=me", &[("PGSERVICE", "shop")]).unwrap_err().to_string();
    assert!(refused.contains("PGSERVICE"), "{refused}");
}

#[test]
fn without_anything_the_process_user_reaches_a_local_socket() {
    let config = parse_in("", &[("HOME", "/home/me")]).unwrap();
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    assert_eq!((config.user(), config.database()), (user.as_str(), user.as_str()));
    assert_eq!(config.hosts[0].address, HostAddress::Default);
    assert_eq!(config.passfile, Some(PathBuf::from("/home/me/.pgpass")));
    assert_eq!(config.ssl_mode(), SslMode::Prefer);
}

#[test]
fn mistakes_are_named_and_values_are_not() {
    for (text, part) in [
        ("postgres://me@db/shop?sslmod=require", "unknown keyword \"sslmod\""),
        ("hots=db", "unknown keyword \"hots\""),
        ("user=me sslmode=hunter2", "sslmode is not one of disable"),
        ("user=me port=hunter2", "port is not a number"),
        ("user=me port=70000", "port is not a number"),
        ("user=me connect_timeout=soon", "connect_timeout is not a whole number"),
        ("user=me keepalives=2", "keepalives is not 0 or 1"),
        ("user=me service=shop", "service files are not read"),
        ("user=me replication=database", "opens its replication connections itself"),
        ("user=me requirepeer=postgres", "requirepeer is not supported"),
        ("user=me gssencmode=require", "gssencmode is not supported"),
        ("user=me sslrootcert=system sslmode=require", "verify-full"),
        ("user=me sslnegotiation=direct", "sslmode=require"),
        ("user=me ssl_max_protocol_version=TLSv1.1", "no TLS version"),
        ("user=me host=@abstract", "abstract"),
        ("user=me hostaddr=db", "IP addresses"),
        ("postgres://me:hunter2/x@db/shop", "port is not a number"),
        ("postgres://me@[::1/shop", "closing \"]\""),
        ("postgres://me@[]/shop", "empty"),
        ("postgres://me@[::1]x/shop", "after the \"]\""),
        ("postgres://me:%zz@db", "hexadecimal"),
        ("postgres://me:%00@db", "%00"),
        ("postgres://me:%ff@db", "UTF-8"),
        (
            "mysql://me:hunter2@db/shop",
            "a database URL begins with postgresql://, for instance postgresql://user@",
        ),
        ("http://db/hunter2", "begins with postgresql://"),
        ("jdbc:postgresql://db/hunter2", "begins with postgresql://"),
        ("postgres://me@db/shop?sslmode", "has no \"=\""),
        ("postgres://me@db/shop?sslmode=a=b", "more than one"),
    ] {
        let error = error(text);
        assert!(error.contains(part), "{text}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn no_password_is_ever_shown() {
    let config = parse("postgres://me:hunter2@a,b:2/shop?sslmode=require");
    let shown = format!("{config} {config:?} {:?}", config.password);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(config.to_string(), "postgresql://me@a:5432,b:2/shop?sslmode=require");
}

#[test]
fn the_other_settings_have_libpqs_words() {
    let config = parse(
        "user=me channel_binding=require target_session_attrs=prefer-standby load_balance_hosts=random \
         require_auth=!password,!none keepalives=0 tcp_user_timeout=0 connect_timeout=0 sslrootcert=/r.crt \
         sslcert=/c.crt sslkey=/c.key sslsni=0 options='-c geqo=off' krbsrvname=x gssencmode=disable",
    );
    assert_eq!(config.channel_binding, ChannelBindingMode::Require);
    assert_eq!(config.target_session, TargetSession::PreferStandby);
    assert!(config.shuffle_hosts && config.keepalive.is_none() && !config.tls.server_name_indication);
    assert_eq!((config.tcp_user_timeout, config.connect_timeout), (None, None));
    assert_eq!(config.require_auth.unwrap().0, [AuthMethod::Md5, AuthMethod::ScramSha256]);
    assert_eq!(config.tls.roots, RootCertificates::File("/r.crt".into()));
    assert_eq!(config.tls.client.unwrap().key, PathBuf::from("/c.key"));
    assert_eq!(config.options.as_deref(), Some("-c geqo=off"));
    assert_eq!(parse("user=me sslrootcert=system").ssl_mode(), SslMode::VerifyFull);
    assert_eq!(parse("postgres://me@db/?ssl=true").ssl_mode(), SslMode::Require);
    assert!(error("user=me require_auth=md5,!password").contains("require_auth"));
}

#[test]
fn another_database_and_user_keep_the_rest() {
    let config = parse("postgres://me:pw@db:1/shop");
    let other = config.with_database("a b").with_user("you");
    assert_eq!(other.to_string(), "postgresql://you@db:1/a%20b");
    assert_eq!(password(&other), Some("pw"));
}

/// What a value can be: anything but NUL, which no part of a connection may hold.
fn value() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>().prop_filter("no NUL", |c| *c != '\0'), 1..20)
        .prop_map(|chars| chars.into_iter().collect())
}

fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        let _ = parse_in(&text, &[]);
    }

    #[test]
    fn no_text_that_looks_like_a_connection_string_makes_the_parser_panic(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("postgres://"), Just("@"), Just(":"), Just("/"), Just("?"), Just("&"), Just("="), Just("["),
                Just("]"), Just(","), Just("%"), Just("%2F"), Just("'"), Just("\\"), Just(" "), Just("host"),
                Just("port"), Just("user"), Just("password"), Just("sslmode"), Just("é"), Just("1"), Just("%e9"),
            ],
            0..24,
        )
    ) {
        let text = pieces.concat();
        let _ = parse_in(&text, &[]);
        let _ = parse_in(&format!("postgres://{text}"), &[]);
    }

    #[test]
    fn any_value_survives_both_forms(user in value(), secret in value(), database in value()) {
        let words =
            format!("user={} password={} dbname={} host=h", quoted(&user), quoted(&secret), quoted(&database));
        let encode = super::text::encode;
        let uri = format!("postgres://{}:{}@h/{}", encode(&user), encode(&secret), encode(&database));
        for config in [parse(&words), parse(&uri)] {
            prop_assert_eq!(config.user(), user.as_str());
            prop_assert_eq!(config.database(), database.as_str());
            prop_assert_eq!(password(&config), Some(secret.as_str()));
            prop_assert_eq!(parse(&config.to_string()), config.without_password());
        }
    }
}

impl ConnectionConfig {
    fn without_password(&self) -> Self {
        Self { password: None, ..self.clone() }
    }
}
