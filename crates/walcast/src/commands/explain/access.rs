//! What the client may have and asks for of the table, and what that makes of a change.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::value::{RawValue, to_raw_value};
use walcast_broadcaster::{Preview, Refusal};
use walcast_filter::{Filter, FilterError, Predicate, Schema, Undecided, Verdict};
use walcast_model::{Change, Op, Part, Relation};
use walcast_policy::{Grant, Rights};
use walcast_protocol::{TablePattern, TableSelection};
use walcast_snapshot::Facts;

use super::report::{Stage, passes};
use super::request::{Asker, Request};
use super::table::Table;

/// The policy's and the subscription's say about a table.
#[derive(Debug)]
pub(super) struct Access {
    stages: Vec<Stage>,
    /// What is applied to rows; `None` when nothing of the table is delivered.
    rules: Option<Rules>,
}

#[derive(Debug)]
struct Rules {
    grant: Grant,
    filter: Option<Filter>,
    columns: Option<BTreeSet<String>>,
    facts: Facts,
    /// What is sent, by the code that sends it.
    preview: Preview,
}

/// The rules as they apply to one definition of the table.
struct Bound {
    policy: Option<Predicate>,
    filter: Option<Predicate>,
    /// Why the subscription would be refused, where neither of them alone says it.
    refused: Option<Stage>,
}

/// What a row or a change comes to.
pub(super) struct Fate {
    pub(super) stages: Vec<Stage>,
    pub(super) sent: Option<Box<RawValue>>,
    /// It came in a definition that the rules do not fit, as they do the table as it is now.
    pub(super) is_unfit: bool,
}

impl Fate {
    fn new(stages: Vec<Stage>, sent: Option<Box<RawValue>>) -> Self {
        Self { stages, sent, is_unfit: false }
    }

    /// Of a definition that is past: what would mend it has been done.
    fn unfit(mut stages: Vec<Stage>) -> Self {
        stages.iter_mut().for_each(|stage| stage.hint = None);
        Self { is_unfit: true, ..Self::new(stages, None) }
    }
}

impl Access {
    pub(super) fn new(request: &Request, table: &Table) -> Self {
        let (grant, mut stages) = granted(request);
        let Table::Published { relation, facts, .. } = table else { return Self { stages, rules: None } };
        let Some(grant) = grant else { return Self { stages, rules: None } };
        let filter = match &request.filter {
            None => None,
            Some((_, Ok(filter))) => Some(filter.clone()),
            Some((_, Err(error))) => {
                stages.push(refused("where", "the where is refused (bad_filter)", error));
                None
            }
        };
        let preview = match preview(request, filter.is_some()) {
            Ok(preview) => preview,
            Err(refusal) => {
                stages.extend(passes(&stages).then(|| Stage::drops("sent", refusal.to_string())));
                return Self { stages, rules: None };
            }
        };
        let rules = Rules { grant, filter, columns: request.columns.clone(), facts: facts.clone(), preview };
        match rules.bind(relation) {
            Ok(bound) => {
                stages.extend(bound.stages(&rules, request, relation));
                stages.extend(bound.refused.filter(|_| passes(&stages)));
            }
            Err(stage) => stages.push(stage),
        }
        let rules = passes(&stages).then_some(rules);
        Self { stages, rules }
    }

    pub(super) fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// What becomes of a row that an initial sync finds.
    pub(super) fn of_row(&self, relation: &Arc<Relation>, row: &[u8]) -> Fate {
        let rules = match self.rules_for(relation) {
            Ok(rules) => rules,
            Err(stage) => return Fate::new(vec![stage], None),
        };
        let (rules, bound) = rules;
        let mut stages: Vec<Stage> = bound
            .each()
            .map(|(stage, predicate)| {
                let (holds, text) = said(predicate.evaluate(row), relation);
                let message = format!("the row: {text}");
                if holds { Stage::keeps(stage, message) } else { Stage::drops(stage, message) }
            })
            .collect();
        if let Some(refused) = bound.refused {
            stages.push(refused);
            return Fate::new(stages, None);
        }
        Fate::new(stages, rules.preview.of_row(relation, row))
    }

    /// What becomes of a change.
    pub(super) fn of_change(&self, part: &Part, change: &Change) -> Fate {
        let relation = &change.relation;
        let (rules, bound) = match self.rules_for(relation) {
            Ok(rules) => rules,
            // Rules that do not fit the table as it is now are none.
            Err(stage) if self.rules.is_some() => return Fate::unfit(vec![stage]),
            Err(stage) => return Fate::new(vec![stage], None),
        };
        let mut stages: Vec<Stage> =
            bound.each().map(|(stage, predicate)| judged(stage, predicate, part, change)).collect();
        if bound.refused.is_some() {
            return Fate::unfit(stages);
        }
        let index = part.changes().iter().position(|one| std::ptr::eq(one, change)).unwrap_or(usize::MAX);
        let sent = match rules.preview.of_change(part, index) {
            Ok(sent) => sent,
            Err(Undecided { column }) => {
                let message = format!("it cannot be told: {}", unknown(column, relation));
                stages.push(Stage::drops("sent", message));
                return Fate::new(stages, None);
            }
        };
        let Some(sent) = sent else { return Fate::new(stages, None) };
        if sent.op != change.op {
            let how = if sent.op == Op::Insert { "comes into view" } else { "leaves the view" };
            let message =
                format!("the {} arrives as {}: the row {how}", change.op.as_str(), sent.op.as_str());
            stages.push(Stage::notes("sent", message));
        }
        Fate::new(stages, to_raw_value(&sent).ok())
    }

    /// Whether a subscription can be told of changes that come in this definition of the table.
    pub(super) fn fits(&self, relation: &Arc<Relation>) -> bool {
        self.rules_for(relation).is_ok_and(|(_, bound)| bound.refused.is_none())
    }

    fn rules_for(&self, relation: &Arc<Relation>) -> Result<(&Rules, Bound), Stage> {
        let rules = self.rules.as_ref();
        let rules =
            rules.ok_or_else(|| Stage::drops("table", "nothing of the table is delivered, see above"))?;
        Ok((rules, rules.bind(relation)?))
    }
}

/// The subscription, with its `where` only if that can be read.
fn preview(request: &Request, with_filter: bool) -> Result<Preview, Refusal> {
    let filter = request.filter.as_ref().filter(|_| with_filter).map(|(text, _)| text.clone());
    let columns = request.columns.as_ref().map(|columns| columns.iter().cloned().collect());
    let table = TableSelection { filter, columns, ..TablePattern::Table(request.table.clone()).into() };
    let rights = request.asker.bearer().map_or(&Rights::Everything, |bearer| &bearer.rights);
    Preview::new(table, rights)
}

/// What the policies grant, and what there is to say about it.
fn granted(request: &Request) -> (Option<Grant>, Vec<Stage>) {
    let table = &request.table;
    let bearer = match &request.asker {
        Asker::Closed => return (None, vec![closed()]),
        Asker::Anybody => {
            let stage =
                Stage::keeps("policy", "no policies are in force: everything that is published may be had");
            return (Some(Grant::everything()), vec![stage]);
        }
        Asker::Bearer(bearer) => bearer,
    };
    let path = bearer.path.display();
    let Some((pattern, policy)) = bearer.policies.deciding(&bearer.role, table) else {
        let message =
            format!("no policy of {path} grants role {:?} anything of {table} (forbidden)", bearer.role);
        let hint = format!("add one: [[policy]] role = {:?}, table = {:?}", bearer.role, table.to_string());
        return (None, vec![Stage::drops("policy", message).hint(hint)]);
    };
    let place = policy.place();
    if let Some(denial) = bearer.rights.denied(table) {
        let message = format!("{place} of {path} (for {pattern}) denies it: {denial}");
        return (None, vec![Stage::drops("policy", message).hint(denial.hint())]);
    }
    let grant = bearer.rights.of(table);
    let rows = policy.predicate().map_or_else(|| "all rows".to_owned(), |text| format!("rows where {text}"));
    let columns = grant.as_ref().and_then(|grant| grant.columns.as_ref());
    let columns = columns.map_or_else(
        || "all columns".to_owned(),
        |columns| format!("columns {}", columns.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
    );
    let stage = Stage::keeps("policy", format!("{place} of {path} (for {pattern}) grants {rows}, {columns}"));
    (grant, vec![stage])
}

/// With authentication and without policies.
pub(super) fn closed() -> Stage {
    let message =
        "no policies are in force, and with authentication nobody may have anything without (forbidden)";
    Stage::drops("policy", message).hint("give walcast serve the setting policies")
}

fn refused(stage: &'static str, what: &str, error: &FilterError) -> Stage {
    Stage::drops(stage, format!("{what}: {error}")).hint(error.hint())
}

impl Rules {
    fn bind(&self, relation: &Arc<Relation>) -> Result<Bound, Stage> {
        let schema = self.facts.schema(Arc::clone(relation));
        let bind = |filter: &Filter, stage, what: &str| {
            filter.bind(&schema).map_err(|error| refused(stage, what, &error))
        };
        let policy = self.grant.rows.as_ref();
        let policy =
            policy.map(|rows| bind(rows, "policy", "the policy's where cannot be applied (forbidden)"));
        let policy = policy.transpose()?;
        let filter = self.filter.as_ref().map(|filter| self.bind_filter(filter, &schema)).transpose()?;
        let refused = self.preview.bind(&schema).err();
        let refused = refused.map(|refusal| Stage::drops("sent", refusal.to_string()));
        Ok(Bound { policy, filter, refused })
    }

    /// The subscription's filter knows of no column that the client may not have: it would tell what is in them.
    fn bind_filter(&self, filter: &Filter, schema: &Schema) -> Result<Predicate, Stage> {
        let known = self.grant.columns.as_ref().map(|visible| schema.narrowed_to(visible));
        filter.bind(known.as_ref().unwrap_or(schema)).map_err(|error| {
            let stage = refused("where", "the where is refused (bad_filter)", &error);
            let is_hidden = known.is_some() && filter.bind(schema).is_ok();
            if is_hidden {
                stage.hint("the policy hides a column of it: answers would tell what is in it")
            } else {
                stage
            }
        })
    }
}

impl Bound {
    fn each(&self) -> impl Iterator<Item = (&'static str, &Predicate)> {
        let policy = self.policy.iter().map(|predicate| ("policy", predicate));
        policy.chain(self.filter.iter().map(|predicate| ("where", predicate)))
    }

    /// What there is to say of the table as a whole.
    fn stages(&self, rules: &Rules, request: &Request, relation: &Relation) -> Vec<Stage> {
        let mut stages = Vec::new();
        if let Some((text, _)) = &request.filter {
            stages.push(Stage::keeps("where", format!("rows where {text}")));
        }
        for (stage, predicate) in self.each() {
            let requirements = predicate.requirements();
            if !requirements.are_met() {
                let columns = requirements.missing.join(", ");
                let message =
                    format!("its columns are not in the replica identity (identity_required): {columns}");
                let mut stage = Stage::drops(stage, message);
                stage.hint = requirements.remedy;
                stages.push(stage);
            }
        }
        stages.push(columns(rules, relation));
        stages
    }
}

fn columns(rules: &Rules, relation: &Relation) -> Stage {
    let asked = rules.columns.as_ref();
    let is_key = |name: &str| relation.columns().iter().any(|column| column.key && column.name == name);
    if let Some(visible) = &rules.grant.columns {
        let refused = asked.into_iter().flatten().find(|name| !visible.contains(*name) && !is_key(name));
        if let Some(column) = refused {
            let message = format!("the policy hides {column}, which is asked for (forbidden)");
            return Stage::drops("columns", message);
        }
    }
    let missing: Vec<&str> = asked
        .into_iter()
        .flatten()
        .filter(|name| !relation.columns().iter().any(|column| column.name == **name))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        let message = format!("columns that are not published (bad_message): {}", missing.join(", "));
        return Stage::drops("columns", message);
    }
    let (mut sent, mut hidden, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for column in relation.columns() {
        let asked = column.key || asked.is_none_or(|columns| columns.contains(&column.name));
        match (rules.grant.shows(column), asked) {
            (true, true) => sent.push(column.name.as_str()),
            (true, false) => left.push(column.name.as_str()),
            (false, _) => hidden.push(column.name.as_str()),
        }
    }
    let mut message = sent.join(", ");
    for (names, why) in [(hidden, "the policy hides"), (left, "nobody asked for")] {
        if !names.is_empty() {
            message.push_str(&format!("; {why} {}", names.join(", ")));
        }
    }
    Stage::keeps("columns", message)
}

/// A verdict for people, and whether the row is in.
fn said(verdict: Verdict, relation: &Relation) -> (bool, String) {
    match verdict {
        Verdict::True => (true, "holds".to_owned()),
        Verdict::False | Verdict::NotTrue => (false, "does not hold".to_owned()),
        Verdict::Null => (false, "is NULL, which is not true".to_owned()),
        Verdict::Unknown(column) => (false, format!("cannot be told: {}", unknown(column, relation))),
    }
}

fn unknown(column: usize, relation: &Relation) -> String {
    let name = relation.columns().get(column).map_or("a column", |column| column.name.as_str());
    format!("the change does not carry {name}")
}

/// What one predicate makes of a change: both images, where it has both.
fn judged(stage: &'static str, predicate: &Predicate, part: &Part, change: &Change) -> Stage {
    let relation = &change.relation;
    let image = |object: Option<&[u8]>| said(predicate.evaluate(object.unwrap_or(b"{}")), relation).1;
    let before = || image(part.old(change).or_else(|| part.key(change)));
    let message = match change.op {
        Op::Insert => format!("the new row: {}", image(part.row(change))),
        Op::Delete => format!("the old row: {}", before()),
        Op::Update => format!("the row before: {}; after: {}", before(), image(part.row(change))),
        Op::Truncate => "a truncate concerns everybody".to_owned(),
    };
    match predicate.decide(part, change) {
        Ok(Some(_)) => Stage::keeps(stage, message),
        Ok(None) => Stage::drops(stage, message),
        Err(_) => {
            let mut stage = Stage::drops(stage, message);
            stage.hint = predicate.requirements().remedy;
            stage
        }
    }
}
