//! From keywords to settings: what was said, else the environment, else the default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::keyword::{Handling, KEYWORDS};
use super::setting::{
    AllowedMethods, AuthMethod, ChannelBindingMode, ClientCertificate, Host, HostAddress, Keepalive,
    RootCertificates, Secret, SslMode, TargetSession, TlsSettings,
};
use super::text::Pairs;
use super::{ConnectionConfig, ConnectionStringError, Name, existing, home};

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;
type Outcome<T> = Result<T, ConnectionStringError>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The values in force, each with the name under which it was given.
struct Settings(BTreeMap<&'static str, (&'static str, String)>);

impl Settings {
    fn new(pairs: Pairs, env: Env<'_>) -> Outcome<Self> {
        let mut given: BTreeMap<_, _> =
            pairs.into_iter().map(|(name, value)| (name, (name, value))).collect();
        for keyword in KEYWORDS {
            if let Some(variable) = keyword.variable.filter(|_| !given.contains_key(keyword.name)) {
                // libpq does not tell an empty variable from an unset one where it matters.
                if let Some(value) = env(variable).filter(|value| !value.is_empty()) {
                    given.insert(keyword.name, (variable, value));
                }
            }
            if let (Handling::Refused(instead), Some((setting, value))) =
                (keyword.handling, given.get(keyword.name))
                && !value.is_empty()
            {
                return Err(ConnectionStringError::Unsupported { setting, instead });
            }
        }
        Ok(Self(given))
    }

    /// The value; an empty one counts as none, as in libpq.
    fn get(&self, name: &str) -> Option<(&'static str, &str)> {
        self.0
            .get(name)
            .filter(|(_, value)| !value.is_empty())
            .map(|(setting, value)| (*setting, value.as_str()))
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|(_, value)| value.to_owned())
    }

    /// One of several words; `None` when nothing was given.
    fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)], expected: &'static str) -> Outcome<Option<T>> {
        self.get(name).map_or(Ok(None), |(setting, value)| {
            let word = words.iter().find(|(word, _)| *word == value);
            word.map(|(_, choice)| Some(*choice))
                .ok_or(ConnectionStringError::InvalidValue { setting, expected })
        })
    }

    fn flag(&self, name: &str, default: bool) -> Outcome<bool> {
        let words = [("0", false), ("1", true)];
        Ok(self.choice(name, &words, "0 or 1")?.unwrap_or(default))
    }

    fn number(&self, name: &str) -> Outcome<Option<i32>> {
        self.get(name).map_or(Ok(None), |(setting, value)| {
            let number = value.trim().parse().map(Some);
            number.map_err(|_| ConnectionStringError::InvalidValue { setting, expected: "a whole number" })
        })
    }

    /// `None` when nothing was given, `Some(None)` for zero and below: no limit, or the system's default.
    fn duration(&self, name: &str, unit: Duration) -> Outcome<Option<Option<Duration>>> {
        let number = self.number(name)?;
        Ok(number.map(|number| u32::try_from(number).ok().filter(|number| *number > 0).map(|n| unit * n)))
    }
}

pub(super) fn resolve(pairs: Pairs, env: Env<'_>) -> Outcome<ConnectionConfig> {
    let settings = Settings::new(pairs, env)?;
    let second = Duration::from_secs(1);
    let user = match settings.text("user") {
        Some(user) => user,
        None => process_user().ok_or(ConnectionStringError::NoUser)?,
    };
    if settings.get("gssencmode").is_some_and(|(_, mode)| mode == "require") {
        let instead = "GSSAPI encryption is not supported; use sslmode=verify-full";
        return Err(ConnectionStringError::Unsupported { setting: "gssencmode", instead });
    }
    let passfile = settings.text("passfile").map(PathBuf::from);
    let config = ConnectionConfig {
        hosts: hosts(&settings)?,
        database: settings.text("dbname").unwrap_or_else(|| user.clone()),
        user,
        password: settings.text("password").map(Secret::new),
        passfile: passfile.or_else(|| home(env).map(|home| home.join(".pgpass"))),
        options: settings.text("options"),
        application_name: settings
            .text("application_name")
            .or_else(|| settings.text("fallback_application_name")),
        connect_timeout: settings.duration("connect_timeout", second)?.unwrap_or(Some(CONNECT_TIMEOUT)),
        keepalive: keepalive(&settings)?,
        tcp_user_timeout: settings
            .duration("tcp_user_timeout", Duration::from_millis(1))?
            .unwrap_or(Some(TCP_USER_TIMEOUT)),
        tls: tls(&settings, env)?,
        channel_binding: channel_binding(&settings)?,
        require_auth: require_auth(&settings)?,
        target_session: settings
            .choice(
                "target_session_attrs",
                &TargetSession::NAMES,
                "any, read-write, read-only, primary, standby or prefer-standby",
            )?
            .unwrap_or(TargetSession::Any),
        shuffle_hosts: settings
            .choice("load_balance_hosts", &[("disable", false), ("random", true)], "disable or random")?
            .unwrap_or(false),
        name: Name::default(),
    };
    Ok(config)
}

fn process_user() -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    user.ok().flatten().map(|user| user.name)
}

fn hosts(settings: &Settings) -> Outcome<Vec<Host>> {
    let split = |name: &str| -> Vec<String> {
        settings
            .text(name)
            .map(|list| list.split(',').map(|part| part.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    let (names, addresses, ports) = (split("host"), split("hostaddr"), split("port"));
    let count = names.len().max(addresses.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        return Err(ConnectionStringError::Lists("host and hostaddr"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(ConnectionStringError::Lists("host and port"));
    }
    (0..count)
        .map(|index| {
            let element = |list: &[String]| list.get(index).cloned().unwrap_or_default();
            let port = if ports.len() == 1 { ports[0].clone() } else { element(&ports) };
            Ok(Host {
                address: host_address(element(&names), &element(&addresses))?,
                port: parse_port(&port)?,
            })
        })
        .collect()
}

fn parse_port(text: &str) -> Outcome<u16> {
    if text.is_empty() {
        return Ok(5432);
    }
    text.parse().ok().filter(|port| *port > 0).ok_or(ConnectionStringError::InvalidValue {
        setting: "port",
        expected: "a number from 1 to 65535 (inside a password write \"/\", \":\" and \"@\" as %2F, %3A and %40)",
    })
}

fn host_address(name: String, address: &str) -> Outcome<HostAddress> {
    if !address.is_empty() {
        let parsed: IpAddr = address.parse().map_err(|_| ConnectionStringError::InvalidValue {
            setting: "hostaddr",
            expected: "a list of IP addresses",
        })?;
        let name = if name.is_empty() { address.to_owned() } else { name };
        return Ok(HostAddress::Tcp { name, address: Some(parsed) });
    }
    if name.starts_with('@') {
        let instead = "abstract Unix sockets are not; name a folder";
        return Err(ConnectionStringError::Unsupported { setting: "host", instead });
    }
    Ok(match name {
        name if name.is_empty() => HostAddress::Default,
        name if name.starts_with('/') => HostAddress::Socket(name.into()),
        name => HostAddress::Tcp { name, address: None },
    })
}

fn keepalive(settings: &Settings) -> Outcome<Option<Keepalive>> {
    let second = Duration::from_secs(1);
    let idle = settings.duration("keepalives_idle", second)?.flatten();
    let interval = settings.duration("keepalives_interval", second)?.flatten();
    let probes = settings.number("keepalives_count")?.and_then(|count| u32::try_from(count).ok());
    let keepalive = Keepalive {
        idle: idle.unwrap_or(Duration::from_secs(30)),
        interval: interval.unwrap_or(Duration::from_secs(10)),
        probes: probes.filter(|count| *count > 0).unwrap_or(3),
    };
    Ok(settings.flag("keepalives", true)?.then_some(keepalive))
}

fn channel_binding(settings: &Settings) -> Outcome<ChannelBindingMode> {
    let words = [
        ("disable", ChannelBindingMode::Disable),
        ("prefer", ChannelBindingMode::Prefer),
        ("require", ChannelBindingMode::Require),
    ];
    let choice = settings.choice("channel_binding", &words, "disable, prefer or require")?;
    Ok(choice.unwrap_or(ChannelBindingMode::Prefer))
}

fn require_auth(settings: &Settings) -> Outcome<Option<AllowedMethods>> {
    const ALL: [(&str, Option<AuthMethod>); 7] = [
        ("none", Some(AuthMethod::None)),
        ("password", Some(AuthMethod::Password)),
        ("md5", Some(AuthMethod::Md5)),
        ("scram-sha-256", Some(AuthMethod::ScramSha256)),
        // Known to libpq; walcast never does them, so to allow or forbid them changes nothing.
        ("gss", None),
        ("sspi", None),
        ("oauth", None),
    ];
    let Some((setting, list)) = settings.get("require_auth") else { return Ok(None) };
    let invalid = ConnectionStringError::InvalidValue {
        setting,
        expected: "a list of password, md5, scram-sha-256, none, gss, sspi and oauth, all or none of them with a \"!\"",
    };
    let (mut named, mut negated) = (Vec::new(), 0);
    let words: Vec<&str> = list.split(',').map(str::trim).collect();
    for word in &words {
        let name = word.strip_prefix('!');
        negated += usize::from(name.is_some());
        let method = ALL.iter().find(|(known, _)| *known == name.unwrap_or(word));
        named.extend(method.ok_or_else(|| invalid.clone())?.1);
    }
    if negated == 0 {
        return Ok(Some(AllowedMethods(named)));
    }
    if negated != words.len() {
        return Err(invalid);
    }
    let rest = ALL.iter().filter_map(|(_, method)| *method).filter(|method| !named.contains(method));
    Ok(Some(AllowedMethods(rest.collect())))
}

fn tls(settings: &Settings, env: Env<'_>) -> Outcome<TlsSettings> {
    let in_home = |name: &str| home(env).map(|home| home.join(".postgresql").join(name));
    let roots = match settings.get("sslrootcert") {
        Some((_, "system")) => RootCertificates::System,
        Some((_, file)) => RootCertificates::File(file.into()),
        None => in_home("root.crt").and_then(existing).map_or(RootCertificates::None, RootCertificates::File),
    };
    let mode = settings.choice(
        "sslmode",
        &SslMode::NAMES,
        "one of disable, allow, prefer, require, verify-ca and verify-full",
    )?;
    let default = if roots == RootCertificates::System { SslMode::VerifyFull } else { SslMode::Prefer };
    let mode = mode.unwrap_or(default);
    if roots == RootCertificates::System && mode < SslMode::VerifyFull {
        let problem = "sslrootcert=system needs sslmode=verify-full: anybody can have a certificate of these authorities";
        return Err(ConnectionStringError::Contradiction(problem));
    }
    let words = [("postgres", false), ("direct", true)];
    let direct = settings.choice("sslnegotiation", &words, "postgres or direct")?.unwrap_or(false);
    if direct && mode < SslMode::Require {
        let problem = "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full";
        return Err(ConnectionStringError::Contradiction(problem));
    }
    let versions = [("TLSv1", 0), ("TLSv1.1", 1), ("TLSv1.2", 2), ("TLSv1.3", 3)];
    let expected = "TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3";
    let lowest = settings.choice("ssl_min_protocol_version", &versions, expected)?.unwrap_or(2);
    let highest = settings.choice("ssl_max_protocol_version", &versions, expected)?.unwrap_or(3);
    if highest < lowest.max(2) {
        let problem = "ssl_max_protocol_version leaves no TLS version: walcast speaks TLSv1.2 and TLSv1.3";
        return Err(ConnectionStringError::Contradiction(problem));
    }
    let sent = [("disable", false), ("allow", true)];
    let send_certificate = settings.choice("sslcertmode", &sent, "disable or allow")?.unwrap_or(true);
    let certificate = match settings.text("sslcert").map(PathBuf::from) {
        Some(named) => Some(named),
        None => in_home("postgresql.crt").and_then(existing),
    };
    let key = settings.text("sslkey").map(PathBuf::from).or_else(|| in_home("postgresql.key"));
    let client = certificate.zip(key).filter(|_| send_certificate);
    Ok(TlsSettings {
        mode,
        direct,
        roots,
        client: client.map(|(certificate, key)| ClientCertificate { certificate, key }),
        server_name_indication: settings.flag("sslsni", true)?,
        allow_tls12: lowest <= 2,
        allow_tls13: highest >= 3,
    })
}
