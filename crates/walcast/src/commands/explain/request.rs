//! What is asked, read and checked.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use walcast_auth::Rules;
use walcast_filter::{Claims, Filter, FilterError};
use walcast_model::{Cursor, RelationName};
use walcast_policy::{ChannelGrants, ChannelRights, Policies, Rights};

use super::claims;
use crate::cli::ExplainArgs;
use crate::commands::tail::qualified;
use crate::output::Failure;
use crate::policy_file;
use crate::settings::ServeSettings;

/// One question.
#[derive(Debug)]
pub(super) enum Question {
    /// What becomes of rows or changes of a table.
    Table(Box<Request>),
    /// What may be done in a channel.
    Channel(ChannelRequest),
}

/// A question about a channel.
#[derive(Debug)]
pub(super) struct ChannelRequest {
    pub(super) channel: String,
    pub(super) asker: Asker,
    /// Bytes that a name may have (`channel_name_bytes_max`).
    pub(super) name_bytes_max: usize,
}

/// Who asks.
#[derive(Debug)]
pub(super) enum Asker {
    /// Nobody is asked who he is.
    Anybody,
    /// Tokens are looked at, and there are no policies that give their bearers anything.
    Closed,
    /// The bearer of a token.
    Bearer(Box<Bearer>),
}

/// A question about a table.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) table: RelationName,
    pub(super) asker: Asker,
    /// What the subscription says: its `where` with its text, and its columns.
    pub(super) filter: Option<(String, Result<Filter, FilterError>)>,
    pub(super) columns: Option<BTreeSet<String>>,
    pub(super) what: What,
}

/// The bearer of a token, and the policies that are asked.
#[derive(Debug)]
pub(super) struct Bearer {
    pub(super) role: String,
    pub(super) policies: Policies,
    pub(super) path: PathBuf,
    pub(super) claims: Claims,
    pub(super) rights: Rights,
}

impl Asker {
    pub(super) fn bearer(&self) -> Option<&Bearer> {
        match self {
            Self::Bearer(bearer) => Some(bearer),
            Self::Anybody | Self::Closed => None,
        }
    }

    /// The channels that he may be in.
    pub(super) fn channels(&self) -> ChannelRights {
        match self {
            Self::Anybody => ChannelRights::Everything,
            Self::Closed => ChannelRights::Granted(ChannelGrants::default()),
            Self::Bearer(bearer) => bearer.policies.channel_rights(&bearer.role, &bearer.claims),
        }
    }
}

/// What is to be explained.
#[derive(Debug)]
pub(super) enum What {
    /// The row with this key, as it is now and by its newest change.
    Row(Map<String, Value>),
    /// The changes of the transaction whose commit record starts there, or one of them.
    Transaction(Transaction),
}

/// A transaction, or one change of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transaction {
    pub(super) from: Cursor,
    /// Only the change at `from`.
    pub(super) only_one: bool,
}

impl Question {
    /// # Errors
    /// When the arguments do not fit together, or a file cannot be used.
    pub(super) fn new(args: ExplainArgs, settings: &ServeSettings) -> Result<Self, Failure> {
        let asker = asker(&args, settings)?;
        match args.channel {
            Some(channel) => {
                let name_bytes_max = settings.broadcast.channel_name_bytes_max;
                Ok(Self::Channel(ChannelRequest { channel, asker, name_bytes_max }))
            }
            None => Ok(Self::Table(Box::new(Request::new(args, asker)?))),
        }
    }
}

impl Request {
    fn new(args: ExplainArgs, asker: Asker) -> Result<Self, Failure> {
        let name = args.table.unwrap_or_default();
        let table = qualified(&name)
            .parse()
            .map_err(|_| Failure::usage(format!("--table {name:?} is not a table such as public.orders")))?;
        let what = match (&args.key, &args.lsn) {
            (Some(key), _) => What::Row(serde_json::from_str(key).map_err(|error| {
                Failure::usage(format!("--key is not a JSON object such as {{\"id\": 1}}: {error}"))
            })?),
            (None, Some(text)) => What::Transaction(transaction(text)?),
            (None, None) => return Err(Failure::usage("name a row with --key, or a transaction with --lsn")),
        };
        let filter = args.filter.map(|text| {
            let parsed = Filter::parse(&text);
            (text, parsed)
        });
        let columns = (!args.columns.is_empty()).then(|| args.columns.into_iter().collect());
        Ok(Self { table, asker, filter, columns, what })
    }
}

fn asker(args: &ExplainArgs, settings: &ServeSettings) -> Result<Asker, Failure> {
    let policies = args.policies.clone().or_else(|| settings.entrance.policies());
    match (&args.claims, policies) {
        (None, None) if settings.entrance.tokens.is_some() => Ok(Asker::Closed),
        (None, None) => Ok(Asker::Anybody),
        (Some(_), None) => Err(Failure::usage(format!("--as: {}", without_policies(settings)))),
        (None, Some(_)) => Err(Failure::usage("policies are in force: say with --as whose claims to take")),
        (Some(claims), Some(policies)) => {
            let bearer = bearer(claims, args.role.clone(), policies, &settings.entrance.rules())?;
            Ok(Asker::Bearer(Box::new(bearer)))
        }
    }
}

/// What it means that no policies are in force, and how to give them.
fn without_policies(settings: &ServeSettings) -> &'static str {
    if settings.entrance.tokens.is_some() {
        "no policies are in force, so nobody may have anything; name their file with --policies, or with the setting \
         policies as for walcast serve"
    } else {
        "no policies are in force and no tokens are looked at, so everybody may have everything that is published; leave \
         --as out, or name the file with --policies, or give the settings of walcast serve (--config: policies, and a key \
         such as jwt_secret_file)"
    }
}

fn transaction(text: &str) -> Result<Transaction, Failure> {
    let from = text.parse().map_err(|_| {
        Failure::usage(format!(
            "--lsn {text:?} is not a place in the feed such as 16/B374D848 or 16/B374D848:3"
        ))
    })?;
    Ok(Transaction { from, only_one: text.contains(':') })
}

fn bearer(claims: &Path, role: Option<String>, path: PathBuf, rules: &Rules) -> Result<Bearer, Failure> {
    let (text, said) = claims::read(claims)?;
    let policies = policy_file::read(&path).map_err(|error| Failure::usage(error.to_string()))?;
    let role = match role {
        Some(role) => role,
        None => {
            let identity = rules.identity(&text);
            let identity =
                identity.map_err(|error| Failure::usage(format!("{}: {error}", claims.display())))?;
            identity.role().to_owned()
        }
    };
    let rights = policies.rights(&role, &said);
    Ok(Bearer { role, policies, path, claims: said, rights })
}
