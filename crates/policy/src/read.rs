//! From the text of policies to their meaning, with everything that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use walcast_filter::{Claims, Policy};
use walcast_protocol::TablePattern;

use crate::channel::{ChannelGrant, ChannelPattern, ChannelPolicy};
use crate::mistake::Mistake;
use crate::policies::{Policies, Role};
use crate::policy::{Place, RowPolicy, TablePolicy};

/// What a policy consists of, for hints.
const KEYS: &str = "a policy has role, table and, if it is not for everything, columns and where; meta = true adds what transactions say about themselves. One about channels has role, channel and, if it is not for everything, allow";

pub(crate) fn read(text: &str) -> Result<Policies, Vec<Mistake>> {
    let mut reader =
        Reader { text, mistakes: Vec::new(), policies: Policies::default(), unreadable: BTreeMap::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().unwrap_or_default();
        let hint = "correct the line: names and texts are quoted, lists stand in brackets";
        let message = format!("not TOML: {}", error.message());
        reader.mistake(at, None, message, hint);
    }
    if errors.is_empty() {
        reader.document(document.get_ref());
    } else {
        let broken: Vec<usize> = errors.iter().filter_map(|error| Some(error.span()?.start)).collect();
        reader.whole_policies(document.get_ref(), &broken);
    }
    let Reader { mut mistakes, policies, .. } = reader;
    if mistakes.is_empty() {
        return Ok(policies);
    }
    mistakes.sort_by_key(|(at, _)| *at);
    Err(mistakes.into_iter().map(|(_, mistake)| mistake).collect())
}

struct Reader<'a> {
    text: &'a str,
    /// With the byte that each is at, for their order.
    mistakes: Vec<(usize, Mistake)>,
    policies: Policies,
    /// Tables whose names cannot be read, where they stand first for a role: the same text is the same table.
    unreadable: BTreeMap<(Role, String), Place>,
}

impl<'a> Reader<'a> {
    fn line(&self, at: usize) -> usize {
        self.text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
    }

    fn mistake(&mut self, at: Range<usize>, policy: Option<usize>, message: String, hint: impl Into<String>) {
        let line = self.line(at.start);
        let place = match policy {
            Some(policy) => Place { policy, line }.to_string(),
            None => format!("line {line}"),
        };
        self.mistakes.push((at.start, Mistake { place, message, hint: hint.into() }));
    }

    fn document(&mut self, document: &DeTable<'a>) {
        for (key, value) in document {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("policy", DeValue::Array(policies)) => {
                    for (index, policy) in policies.iter().enumerate() {
                        self.policy(index + 1, policy);
                    }
                }
                ("policy", _) => {
                    let message = "policy is not a list".to_owned();
                    self.mistake(key.span(), None, message, "begin each policy with [[policy]]");
                }
                (other, _) => {
                    let message = format!("there is no {other:?} here");
                    self.mistake(key.span(), None, message, "begin each policy with [[policy]]");
                }
            }
        }
    }

    /// Where the text is no TOML, at these bytes: the policies that it breaks nothing of. What the parser made of the
    /// others would be mistakes that nobody made.
    fn whole_policies(&mut self, document: &DeTable<'a>, broken: &[usize]) {
        let Some(policies) = document.get("policy").and_then(|policies| policies.get_ref().as_array()) else {
            return;
        };
        for policy in policies.iter() {
            let start = policy.span().start;
            // Up to the next heading, also where that one is broken.
            let rest = self.text.get(start..).unwrap_or_default();
            let end = rest.find("\n[[").map_or(self.text.len(), |length| start + length + 1);
            if broken.iter().any(|at| (start..=end).contains(at)) {
                continue;
            }
            // The parser may have lost one.
            let before = self.text.get(..start).unwrap_or_default().lines();
            let number = 1 + before.filter(|line| line.trim_start().starts_with("[[policy]")).count();
            self.policy(number, policy);
        }
    }

    fn policy(&mut self, number: usize, policy: &Spanned<DeValue<'a>>) {
        let DeValue::Table(fields) = policy.get_ref() else {
            let message = format!("a policy is a table, not {}", policy.get_ref().type_str());
            return self.mistake(policy.span(), Some(number), message, "begin each policy with [[policy]]");
        };
        self.policies.count = number;
        if fields.keys().any(|key| key.get_ref() == "channel") {
            return self.channel_policy(number, policy.span(), fields);
        }
        let (mut roles, mut tables) = (None, None);
        let mut meaning = TablePolicy {
            place: Place { policy: number, line: self.line(policy.span().start) },
            columns: None,
            rows: None,
            meta: false,
        };
        for (key, value) in fields {
            match key.get_ref().as_ref() {
                "role" => roles = Some(self.list(number, "role", value, role)),
                "table" => tables = Some(self.list(number, "table", value, table)),
                "columns" => meaning.columns = Some(self.columns(number, value)),
                "where" => meaning.rows = self.predicate(number, value),
                "meta" => meaning.meta = self.flag(number, "meta", value),
                other => {
                    self.mistake(key.span(), Some(number), format!("a policy has no {other:?}"), KEYS);
                }
            }
        }
        if roles.is_none() {
            let hint = "say whose policy it is: role = \"customer\", or \"*\" for every role";
            self.mistake(policy.span(), Some(number), "role is missing".to_owned(), hint);
        }
        if tables.is_none() {
            let hint = "say what it is about: table = \"public.orders\", \"public.*\" or \"*\", or channel = \"room:*\"";
            self.mistake(policy.span(), Some(number), "table is missing".to_owned(), hint);
        }
        let meaning = Arc::new(meaning);
        for (role, _) in roles.iter().flatten() {
            for (table, at) in tables.iter().flatten() {
                self.add(number, role, table, at.clone(), &meaning);
            }
            if let Some(tables) = fields.get("table") {
                self.add_unreadable(number, role, tables, meaning.place);
            }
        }
    }

    /// A policy about channels.
    fn channel_policy(&mut self, number: usize, at: Range<usize>, fields: &DeTable<'a>) {
        let (mut roles, mut channels, mut grant) = (None, Vec::new(), ChannelGrant::EVERYTHING);
        let place = Place { policy: number, line: self.line(at.start) };
        for (key, value) in fields {
            match key.get_ref().as_ref() {
                "role" => roles = Some(self.list(number, "role", value, role)),
                "channel" => channels = self.list(number, "channel", value, ChannelPattern::parse),
                "allow" => grant = self.allow(number, value),
                other @ ("table" | "columns" | "where" | "meta") => {
                    let message = format!("a policy about channels has no {other}");
                    self.mistake(
                        key.span(),
                        Some(number),
                        message,
                        "write a policy of its own for the table",
                    );
                }
                other => self.mistake(key.span(), Some(number), format!("a policy has no {other:?}"), KEYS),
            }
        }
        if roles.is_none() {
            let hint = "say whose policy it is: role = \"customer\", or \"*\" for every role";
            self.mistake(at, Some(number), "role is missing".to_owned(), hint);
        }
        for (role, _) in roles.into_iter().flatten() {
            let policies =
                channels.iter().map(|(pattern, _)| ChannelPolicy { place, pattern: pattern.clone(), grant });
            self.policies.channels.entry(role).or_default().extend(policies);
        }
    }

    fn allow(&mut self, number: usize, value: &Spanned<DeValue<'a>>) -> ChannelGrant {
        let mut grant = ChannelGrant::default();
        // An empty list is a list: being sent what is said.
        if value.get_ref().as_array().is_some_and(|allowed| allowed.is_empty()) {
            return grant;
        }
        let parse = |text: &str| match text {
            "publish" => Ok(ChannelGrant { publish: true, ..ChannelGrant::default() }),
            "presence" => Ok(ChannelGrant { presence: true, ..ChannelGrant::default() }),
            other => {
                let hint = "write \"publish\" and \"presence\", or [] for joining alone, which comes always";
                Err((format!("allow has no {other:?}"), hint.to_owned()))
            }
        };
        for (allowed, _) in self.list(number, "allow", value, parse) {
            grant = grant.and(allowed);
        }
        grant
    }

    fn add(
        &mut self,
        number: usize,
        role: &Role,
        table: &TablePattern,
        at: Range<usize>,
        meaning: &Arc<TablePolicy>,
    ) {
        let of_role = self.policies.roles.entry(role.clone()).or_default();
        let Some(first) = of_role.get(table) else {
            of_role.insert(table.clone(), Arc::clone(meaning));
            return;
        };
        let first = first.place;
        self.second(number, role, &table.to_string(), at, (first, meaning.place));
    }

    /// The same for names of tables that have been told to be none: both are to be mended.
    fn add_unreadable(&mut self, number: usize, role: &Role, tables: &Spanned<DeValue<'a>>, place: Place) {
        for element in elements(tables) {
            let Some(text) = element.get_ref().as_str().filter(|text| table(text).is_err()) else { continue };
            match self.unreadable.get(&(role.clone(), text.to_owned())) {
                Some(first) => {
                    self.second(number, role, &format!("{text:?}"), element.span(), (*first, place))
                }
                None => {
                    self.unreadable.insert((role.clone(), text.to_owned()), place);
                }
            }
        }
    }

    /// A second policy for a table and a role; `places`: of the first one, and its own.
    fn second(&mut self, number: usize, role: &Role, table: &str, at: Range<usize>, places: (Place, Place)) {
        let (first, own) = places;
        let place = if first == own { "the same policy".to_owned() } else { first.to_string() };
        let whom = match role {
            Role::Every => "every role".to_owned(),
            Role::Named(name) => format!("role {name:?}"),
        };
        let message = format!("table {table} has a policy for {whom} already: {place}");
        let hint = "leave one of them; conditions are joined in one where, by OR and AND";
        self.mistake(at, Some(number), message, hint);
    }

    /// One text or a list of texts, each with its place; those that are good.
    fn list<T>(
        &mut self,
        number: usize,
        name: &str,
        value: &Spanned<DeValue<'a>>,
        parse: impl Fn(&str) -> Result<T, (String, String)>,
    ) -> Vec<(T, Range<usize>)> {
        let elements = elements(value);
        if elements.is_empty() {
            let message = format!("{name} is an empty list");
            self.mistake(value.span(), Some(number), message, "name one, or leave the policy away");
        }
        let mut good = Vec::new();
        for element in elements {
            let Some(text) = element.get_ref().as_str() else {
                let message =
                    format!("{name} is a text or a list of texts, not {}", element.get_ref().type_str());
                self.mistake(element.span(), Some(number), message, "write it in quotes");
                continue;
            };
            match parse(text) {
                Ok(value) => good.push((value, element.span())),
                Err((message, hint)) => self.mistake(element.span(), Some(number), message, hint),
            }
        }
        good
    }

    fn columns(&mut self, number: usize, value: &Spanned<DeValue<'a>>) -> BTreeSet<String> {
        if !value.get_ref().is_array() {
            let message = "columns is not a list".to_owned();
            let hint = "write columns = [\"id\", \"total\"], or leave it away for all columns";
            self.mistake(value.span(), Some(number), message, hint);
            return BTreeSet::new();
        }
        // An empty list is a list: the key alone.
        if value.get_ref().as_array().is_some_and(|columns| columns.is_empty()) {
            return BTreeSet::new();
        }
        self.list(number, "columns", value, column).into_iter().map(|(column, _)| column).collect()
    }

    fn flag(&mut self, number: usize, name: &str, value: &Spanned<DeValue<'a>>) -> bool {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            let message = format!("{name} is true or false, not {}", value.get_ref().type_str());
            self.mistake(value.span(), Some(number), message, "write it without quotes");
        }
        flag.unwrap_or(false)
    }

    fn predicate(&mut self, number: usize, value: &Spanned<DeValue<'a>>) -> Option<RowPolicy> {
        let Some(text) = value.get_ref().as_str() else {
            let message = format!("where is a text, not {}", value.get_ref().type_str());
            let hint = "write where = \"customer_id = claims.sub\", or leave it away for all rows";
            self.mistake(value.span(), Some(number), message, hint);
            return None;
        };
        // Bound as well: what no claims at all can fill denies everybody, and is better said now.
        let nobody = Claims::parse("{}");
        let parsed = Policy::parse(text).and_then(|predicate| {
            nobody.and_then(|nobody| predicate.bind_claims(&nobody)).map(|_| predicate)
        });
        match parsed {
            Ok(predicate) => Some(RowPolicy { text: text.into(), predicate }),
            Err(error) => {
                self.mistake(value.span(), Some(number), format!("where: {error}"), error.hint());
                None
            }
        }
    }
}

/// Those of a list, or what stands in its place.
fn elements<'v, 'a>(value: &'v Spanned<DeValue<'a>>) -> &'v [Spanned<DeValue<'a>>] {
    match value.get_ref() {
        DeValue::Array(elements) => elements.as_ref(),
        _ => std::slice::from_ref(value),
    }
}

fn role(text: &str) -> Result<Role, (String, String)> {
    match text {
        "" => Err(("role is empty".into(), "name a role, or \"*\" for every role".into())),
        "*" => Ok(Role::Every),
        name => Ok(Role::Named(name.to_owned())),
    }
}

fn table(text: &str) -> Result<TablePattern, (String, String)> {
    text.parse().map_err(|_| {
        let message = format!("{text:?} names no table");
        (message, "write schema.table, schema.* or *; there is no default schema".into())
    })
}

fn column(text: &str) -> Result<String, (String, String)> {
    match text {
        "" => Err(("a column without a name".into(), "write the names as the catalog spells them".into())),
        "*" => Err(("\"*\" is no column".into(), "leave columns away for all columns".into())),
        name => Ok(name.to_owned()),
    }
}
