//! What is asked, read and checked.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use walcast_auth::Rules;
use walcast_filter::{Claims, Filter, FilterError};
use walcast_model::{Cursor, RelationName};
use walcast_policy::{Policies, Rights};

use crate::cli::ExplainArgs;
use crate::commands::tail::qualified;
use crate::output::Failure;
use crate::policy_file;
use crate::settings::ServeSettings;

/// One question.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) table: RelationName,
    /// Who asks; `None` when nobody is asked who he is.
    pub(super) bearer: Option<Bearer>,
    /// Tokens are looked at, and there are no policies that give their bearers anything.
    pub(super) is_closed: bool,
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
    pub(super) rights: Rights,
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

impl Request {
    pub(super) fn new(args: ExplainArgs, settings: &ServeSettings) -> Result<Self, Failure> {
        let table = qualified(&args.table).parse().map_err(|_| {
            Failure::usage(format!("--table {:?} is not a table such as public.orders", args.table))
        })?;
        let policies = args.policies.clone().or_else(|| settings.entrance.policies());
        let bearer = match (&args.claims, policies) {
            (None, None) => None,
            (Some(_), None) => {
                return Err(Failure::usage(format!("--as: {}", without_policies(settings))));
            }
            (None, Some(_)) => {
                return Err(Failure::usage("policies are in force: say with --as whose claims to take"));
            }
            (Some(claims), Some(policies)) => {
                Some(bearer(claims, args.role, policies, &settings.entrance.rules())?)
            }
        };
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
        let is_closed = bearer.is_none() && settings.entrance.tokens.is_some();
        Ok(Self { table, bearer, is_closed, filter, columns, what })
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
    let text = read(claims).map_err(|error| {
        Failure::usage(format!("the claims in {} cannot be read: {error}", claims.display()))
    })?;
    let wrong =
        |error: FilterError| Failure::usage(format!("{}: {error}; {}", claims.display(), error.hint()));
    let said = Claims::parse(&text).map_err(wrong)?;
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
    Ok(Bearer { role, policies, path, rights })
}

fn read(path: &Path) -> std::io::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(path)
}
