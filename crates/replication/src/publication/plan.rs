//! What to do about the publications: the difference between what is and what should be. No I/O.

mod all_tables;
mod finding;

use std::collections::{BTreeMap, BTreeSet};

use walcast_model::{Oid, RelationName};
use walcast_postgres::quote_identifier;

use super::facts::{Facts, IdentityFacts, PublicationFacts, TableFacts};
use super::{PublicationSettings, Selection};
use crate::assemble::OWN_SCHEMA;

pub use finding::{Finding, FindingKind};

/// The steps to take, in order, and what a person should know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order; each is a transaction of its own.
    pub steps: Vec<PlanStep>,
    /// What is not as it should be, and cannot or should not be changed by walcast.
    pub findings: Vec<Finding>,
    /// The tables that are published when every step is done, with the partitioned ones; `None` where the publications stay
    /// as they are, so that the catalog says it.
    pub tables: Option<BTreeSet<Oid>>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanStep {
    /// What is to be done.
    pub action: Action,
    /// Whether the connected role may do it; otherwise an administrator must run its statements.
    pub allowed: bool,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Creates or changes a publication itself, by one statement.
    Publication {
        /// The publication.
        publication: String,
        /// The statement.
        statement: String,
    },
    /// Adds a table, moves it or takes it away.
    Table(TableStep),
}

/// Which of the two publications a table is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// `<name>_inserts`.
    Inserts,
    /// `<name>`.
    Whole,
}

/// What has to be said in the feed about the rows that are there when a table's place changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pickup {
    /// Nothing: they were said, or nobody may see the table any more.
    None,
    /// All of them: the table is new to the feed.
    Rows,
    /// All of them, in the place of what was said: only inserts were published until now.
    Replace,
}

/// One table's move between the publications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStep {
    /// The table.
    pub oid: Oid,
    /// Its name.
    pub name: RelationName,
    /// Whether it is partitioned.
    pub partitioned: bool,
    /// Where it is added, with the publication's name.
    pub enter: Option<(Placement, String)>,
    /// The publications that it leaves.
    pub leave: Vec<String>,
    /// What is said of its rows, when a feed runs.
    pub pickup: Pickup,
}

impl TableStep {
    /// Its statements. `ONLY`, because tables that inherit from it are tables of their own here. It enters before it leaves:
    /// whoever runs them one by one keeps it in the feed.
    #[must_use]
    pub fn statements(&self) -> Vec<String> {
        let table = quoted(&self.name);
        let alter = |publication: &str, verb: &str| {
            format!("ALTER PUBLICATION {} {verb} TABLE ONLY {table};", quote_identifier(publication))
        };
        let leave = self.leave.iter().map(|publication| alter(publication, "DROP"));
        let enter = self.enter.iter().map(|(_, publication)| alter(publication, "ADD"));
        enter.chain(leave).collect()
    }
}

impl Action {
    /// Its statements, as an administrator would run them.
    #[must_use]
    pub fn statements(&self) -> Vec<String> {
        match self {
            Self::Publication { statement, .. } => vec![statement.clone()],
            Self::Table(step) => step.statements(),
        }
    }
}

/// `"schema"."table"`.
pub(super) fn quoted(name: &RelationName) -> String {
    format!("{}.{}", quote_identifier(&name.schema), quote_identifier(&name.table))
}

impl Plan {
    /// Compares what is with what should be.
    #[must_use]
    pub fn new(facts: &Facts, settings: &PublicationSettings) -> Self {
        Self::of(facts, settings, false)
    }

    /// The same for somebody who runs its statements by hand, before there is a feed: afterwards nothing is left to do.
    /// ([`Plan::new`] lists the partitions of a new table in the next plan, when the feed has been told of their rows.)
    #[must_use]
    pub fn by_hand(facts: &Facts, settings: &PublicationSettings) -> Self {
        Self::of(facts, settings, true)
    }

    fn of(facts: &Facts, settings: &PublicationSettings, is_by_hand: bool) -> Self {
        if !settings.manage {
            let findings = finding::of_given(facts, &settings.name);
            return Self { findings, ..Self::default() };
        }
        if settings.selection == Selection::ForAllTables {
            return all_tables::plan(facts, settings);
        }
        let mut planner = Planner::new(facts, settings, is_by_hand);
        planner.publications();
        planner.tables();
        planner.finish()
    }

    /// All statements of the plan, in order.
    #[must_use]
    pub fn statements(&self) -> Vec<String> {
        self.steps.iter().flat_map(|step| step.action.statements()).collect()
    }

    /// The statements that the connected role may not run: an administrator has to.
    #[must_use]
    pub fn administrator_statements(&self) -> Vec<String> {
        self.steps.iter().filter(|step| !step.allowed).flat_map(|step| step.action.statements()).collect()
    }
}

/// How much of a table is published.
type Level = Option<Placement>;

struct Planner<'a> {
    facts: &'a Facts,
    settings: &'a PublicationSettings,
    /// Whether no feed is told of rows.
    is_by_hand: bool,
    inserts_name: String,
    whole: Option<&'a PublicationFacts>,
    inserts: Option<&'a PublicationFacts>,
    /// Where each wanted table belongs.
    wanted: BTreeMap<Oid, Placement>,
    steps: Vec<PlanStep>,
    findings: Vec<Finding>,
}

impl<'a> Planner<'a> {
    fn new(facts: &'a Facts, settings: &'a PublicationSettings, is_by_hand: bool) -> Self {
        let inserts_name = settings.inserts_name();
        Self {
            facts,
            settings,
            is_by_hand,
            whole: facts.publication(&settings.name),
            inserts: facts.publication(&inserts_name),
            inserts_name,
            wanted: BTreeMap::new(),
            steps: Vec::new(),
            findings: Vec::new(),
        }
    }

    fn publications(&mut self) {
        for (name, existing, operations, list) in [
            (&self.settings.name, self.whole, [true; 4], "insert, update, delete, truncate"),
            (&self.inserts_name, self.inserts, [true, false, false, true], "insert, truncate"),
        ] {
            let options = format!("(publish = '{list}', publish_via_partition_root = false)");
            let quoted = quote_identifier(name);
            let (statement, allowed) = match existing {
                None => (format!("CREATE PUBLICATION {quoted} WITH {options};"), self.facts.role.create),
                Some(existing) if existing.all_tables || !existing.schemas.is_empty() => {
                    self.findings.push(finding::foreign(existing));
                    continue;
                }
                Some(existing) if existing.operations != operations || existing.via_root => {
                    (format!("ALTER PUBLICATION {quoted} SET {options};"), existing.owned)
                }
                Some(_) => continue,
            };
            let action = Action::Publication { publication: name.clone(), statement };
            self.steps.push(PlanStep { action, allowed });
        }
    }

    /// Decides where tables belong, and makes the steps that bring them there.
    fn tables(&mut self) {
        let selected = self.selected();
        for &table in &selected {
            let placement = if self.is_whole(table) { Placement::Whole } else { Placement::Inserts };
            self.wanted.insert(table.oid, placement);
        }
        let mut steps: Vec<(u8, PlanStep)> = Vec::new();
        for table in selected {
            if !table.partitioned && table.identity != IdentityFacts::Usable {
                let found = finding::identity(table, false);
                // With the step that this makes possible, where walcast may not take it by itself.
                let then = (!self.allowed(table)).then(|| self.to_whole(table));
                self.findings.push(found.then(then.into_iter().flat_map(|step| step.statements())));
            }
            steps.extend(self.table(table));
        }
        steps.extend(self.unwanted());
        // What breaks the application first; then what is missing; what is only tidier last.
        steps.sort_by_key(|(order, _)| *order);
        self.steps.extend(steps.into_iter().map(|(_, step)| step));
    }

    /// The wanted tables, in the order of their oids. Partitioned tables below the topmost need nothing of their own.
    fn selected(&mut self) -> Vec<&'a TableFacts> {
        let listed: Option<BTreeSet<Oid>> = match &self.settings.selection {
            Selection::Listed(names) => Some(names.iter().filter_map(|name| self.listed(name)).collect()),
            Selection::UserTables | Selection::ForAllTables => None,
        };
        let wanted = |table: &&TableFacts| {
            let in_list = |oid| listed.as_ref().is_some_and(|listed| listed.contains(oid));
            let chosen = match &listed {
                Some(_) => in_list(&table.oid) || table.root.as_ref().is_some_and(in_list),
                None => !table.extension,
            };
            chosen
                && table.permanent
                && table.name.schema != OWN_SCHEMA
                && !(table.partitioned && table.root.is_some())
        };
        self.facts.tables.iter().filter(wanted).collect()
    }

    fn listed(&mut self, name: &RelationName) -> Option<Oid> {
        let table = self.facts.tables.iter().find(|table| table.name == *name);
        let problem = match table {
            Some(table) if table.name.schema == OWN_SCHEMA => "walcast's own tables are never published",
            Some(table) if table.permanent => return Some(table.oid),
            Some(_) => "temporary and unlogged tables write nothing to the WAL",
            None => "there is no such table; it is added once there is",
        };
        self.findings.push(Finding {
            kind: FindingKind::Unpublishable,
            subject: name.to_string(),
            problem: problem.to_owned(),
            statement: None,
        });
        None
    }

    fn partitions(&self, root: Oid) -> impl Iterator<Item = &'a TableFacts> + use<'a> {
        self.facts.tables.iter().filter(move |table| table.root == Some(root) && !table.partitioned)
    }

    /// A table may be published whole when that cannot break its UPDATE and DELETE; a partitioned one also when no
    /// partition that it has or gets would be broken (a partition gets its primary key from the root).
    fn is_whole(&self, table: &TableFacts) -> bool {
        let usable = |table: &TableFacts| table.identity == IdentityFacts::Usable;
        if table.partitioned {
            let keyed = matches!(
                table.identity,
                IdentityFacts::Usable | IdentityFacts::Nothing { primary_key: true }
            );
            return keyed && self.partitions(table.oid).all(usable);
        }
        usable(table)
    }

    fn lists(publication: Option<&PublicationFacts>, oid: Oid) -> bool {
        publication.is_some_and(|publication| publication.tables.contains(&oid))
    }

    /// How much of a table is published now, by itself or by its root.
    fn level(&self, oid: Oid) -> Level {
        if Self::lists(self.whole, oid) {
            Some(Placement::Whole)
        } else if Self::lists(self.inserts, oid) {
            Some(Placement::Inserts)
        } else {
            None
        }
    }

    fn allowed(&self, table: &TableFacts) -> bool {
        // One that somebody else has to create is somebody else's.
        let alterable = |publication: Option<&PublicationFacts>| {
            publication.map_or(self.facts.role.create, |existing| existing.owned)
        };
        table.owned && alterable(self.whole) && alterable(self.inserts)
    }

    fn table(&self, table: &TableFacts) -> Option<(u8, PlanStep)> {
        let wanted = *self.wanted.get(&table.oid)?;
        let root_level = table.root.and_then(|root| self.level(root));
        let root_wanted = table.root.and_then(|root| self.wanted.get(&root).copied());
        let listed = |placement| match placement {
            Placement::Whole => Self::lists(self.whole, table.oid),
            Placement::Inserts => Self::lists(self.inserts, table.oid),
        };
        let level = self.level(table.oid).max(root_level);
        if level.is_none() && root_wanted == Some(wanted) && !self.is_by_hand {
            // The root's step carries its partitions' rows; they are listed by themselves the next time.
            return None;
        }
        let name = |placement| match placement {
            Placement::Whole => self.settings.name.clone(),
            Placement::Inserts => self.inserts_name.clone(),
        };
        let other = match wanted {
            Placement::Whole => Placement::Inserts,
            Placement::Inserts => Placement::Whole,
        };
        let enter = (!listed(wanted)).then(|| (wanted, name(wanted)));
        let leave: Vec<String> = listed(other).then(|| name(other)).into_iter().collect();
        if enter.is_none() && leave.is_empty() {
            return None;
        }
        let pickup = match (level, wanted) {
            (None, _) => Pickup::Rows,
            (Some(Placement::Inserts), Placement::Whole) if !table.partitioned => Pickup::Replace,
            _ => Pickup::None,
        };
        let breaks = level == Some(Placement::Whole) && wanted == Placement::Inserts;
        let order = match (breaks, pickup) {
            (true, _) => 0,
            // A partitioned table after its partitions: it takes those that are not listed by then.
            (_, Pickup::Rows) if table.partitioned => 2,
            (_, Pickup::Rows | Pickup::Replace) => 1,
            _ => 3,
        };
        Some((order, self.step(table, enter, leave, pickup)))
    }

    /// From inserts alone, where it is or will be by then, to everything.
    fn to_whole(&self, table: &TableFacts) -> TableStep {
        TableStep {
            oid: table.oid,
            name: table.name.clone(),
            partitioned: table.partitioned,
            enter: Some((Placement::Whole, self.settings.name.clone())),
            leave: vec![self.inserts_name.clone()],
            pickup: Pickup::Replace,
        }
    }

    fn step(
        &self,
        table: &TableFacts,
        enter: Option<(Placement, String)>,
        leave: Vec<String>,
        pickup: Pickup,
    ) -> PlanStep {
        let step = TableStep {
            oid: table.oid,
            name: table.name.clone(),
            partitioned: table.partitioned,
            enter,
            leave,
            pickup,
        };
        PlanStep { action: Action::Table(step), allowed: self.allowed(table) }
    }

    /// Takes out what is listed and not wanted.
    fn unwanted(&self) -> Vec<(u8, PlanStep)> {
        let tables = self.facts.tables.iter().filter(|table| !self.wanted.contains_key(&table.oid));
        let steps = tables.filter_map(|table| {
            let listing = [self.whole, self.inserts].into_iter().flatten();
            let leave: Vec<String> = listing
                .filter(|publication| publication.tables.contains(&table.oid))
                .map(|publication| publication.name.clone())
                .collect();
            (!leave.is_empty()).then(|| (4, self.step(table, None, leave, Pickup::None)))
        });
        steps.collect()
    }

    fn finish(mut self) -> Plan {
        for step in self.steps.iter().filter(|step| !step.allowed) {
            self.findings.push(finding::privilege(step, self.facts));
        }
        let tables = Some(self.wanted.into_keys().collect());
        Plan { steps: self.steps, findings: self.findings, tables }
    }
}
