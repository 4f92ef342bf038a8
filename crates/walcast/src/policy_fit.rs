//! Whether policies fit the tables: what they name must be there and published, and what a `where` looks at must be in the
//! table's replica identity. `doctor` asks it of the file, `serve` of the policies that come into force.

use std::collections::BTreeSet;
use std::sync::Arc;

use walcast_filter::{Refusal, Schema};
use walcast_model::{Relation, RelationName};
use walcast_policy::{Place, Policies, TablePolicy};
use walcast_postgres::{Session, catalog};
use walcast_protocol::TablePattern;
use walcast_replication::publication::{Facts, PublicationSettings, TableFacts};
use walcast_snapshot::{PublishedTable, facts, published_tables};

use crate::commands::doctor::Fix;
use crate::output::listed;
use crate::settings::suggestion;

/// A policy that does not do what it was written for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Misfit {
    pub(crate) place: Place,
    /// What is wrong, as a fragment that follows the place.
    pub(crate) problem: String,
    /// What mends it.
    pub(crate) fix: Fix,
    /// Whoever it is for is refused the table, whatever the claims.
    pub(crate) is_refused: bool,
}

/// Looks at every policy and every table that is published; `None` while there is none.
///
/// # Errors
/// When the source cannot be asked, or publications contradict one another.
pub(crate) async fn misfits(
    session: &Session,
    publication: &PublicationSettings,
    policies: &Policies,
) -> Result<Option<Vec<Misfit>>, walcast_snapshot::Error> {
    let published = published_tables(session, &publication.names()).await?;
    if published.is_empty() {
        // Which others say.
        return Ok(None);
    }
    let there = Facts::read(session).await.map_err(|error| match error {
        walcast_replication::Error::Postgres(error) => walcast_snapshot::Error::from(error),
        // Nothing else is asked.
        other => walcast_postgres::Error::Protocol(other.to_string()).into(),
    })?;
    let mut of_tables = OfTables::default();
    for table in &published {
        let deciding = policies.deciding_for_anybody(&table.name);
        let has_say = |policy: &TablePolicy| policy.predicate().is_some() || policy.columns().is_some();
        if !deciding.iter().any(|(_, policy)| has_say(policy)) {
            continue;
        }
        let Some(schema) = schema(session, table).await? else { continue };
        for (pattern, policy) in deciding {
            of_tables.look(&pattern, policy, &schema);
        }
    }
    let names = published.into_iter().map(|table| table.name).collect();
    let mut misfits =
        Names { published: names, there: &there.tables, role: &there.role.name }.misfits(policies);
    misfits.extend(of_tables.misfits());
    misfits.sort_by_key(|misfit| misfit.place.policy);
    Ok(Some(misfits))
}

/// The table as the stream has it; `None` when it was dropped meanwhile.
async fn schema(
    session: &Session,
    table: &PublishedTable,
) -> Result<Option<Schema>, walcast_snapshot::Error> {
    let Some(found) = catalog::relation(session, table.oid).await? else { return Ok(None) };
    let columns = table.columns.iter().filter_map(|column| found.column(column));
    let columns = columns.map(|column| column.definition(found.identity)).collect();
    let relation = Relation::new(found.oid, found.name.clone(), found.identity, columns);
    Ok(Some(facts(session, table.oid).await?.schema(Arc::new(relation))))
}

/// What policies say of tables that are published.
#[derive(Debug, Default)]
struct OfTables {
    found: Vec<Misfit>,
    /// Of policies for many tables: those whose columns are not what the policy names.
    strangers: Vec<(Place, Vec<RelationName>)>,
    /// Tables of which it has been said what their identity lacks: one statement mends it for all policies.
    lacking: BTreeSet<RelationName>,
}

impl OfTables {
    fn look(&mut self, pattern: &TablePattern, policy: &TablePolicy, schema: &Schema) {
        let (place, relation) = (policy.place(), schema.relation());
        let is_one = matches!(pattern, TablePattern::Table(_));
        match policy.requirements(schema) {
            Some(Err(error)) if error.refusal() == Refusal::UnknownColumn && !is_one => {
                self.stranger(place, relation.name());
            }
            Some(Err(error)) => self.found.push(Misfit {
                place,
                problem: format!(
                    "cannot be applied to {}, and gives nothing of it: {error}",
                    relation.name()
                ),
                fix: Fix::from(format!("correct its where: {}", error.hint())),
                is_refused: true,
            }),
            Some(Ok(requirements)) => {
                if let Some(remedy) = requirements.remedy
                    && self.lacking.insert(relation.name().clone())
                {
                    self.found.push(lacking(place, &requirements.missing, relation, &remedy));
                }
            }
            None => {}
        }
        if is_one {
            self.found.extend(unknown_columns(policy, relation));
        }
    }

    fn stranger(&mut self, place: Place, table: &RelationName) {
        match self.strangers.iter_mut().find(|(known, _)| *known == place) {
            Some((_, tables)) => tables.push(table.clone()),
            None => self.strangers.push((place, vec![table.clone()])),
        }
    }

    fn misfits(self) -> Vec<Misfit> {
        let strangers = self.strangers.into_iter().map(|(place, tables)| Misfit {
            place,
            problem: format!(
                "gives nothing of {}, without a column that its where looks at",
                listed(&tables)
            ),
            fix: Fix::from("give each of these tables a policy of its own, or name the others".to_owned()),
            is_refused: false,
        });
        self.found.into_iter().chain(strangers).collect()
    }
}

fn lacking(place: Place, missing: &[String], relation: &Relation, remedy: &str) -> Misfit {
    let are = if missing.len() == 1 { "is" } else { "are" };
    Misfit {
        place,
        problem: format!(
            "looks at {}, which {are} not in the replica identity of {}: its deletes could not be told apart, so \
             subscriptions are refused (identity_required)",
            missing.join(", "),
            relation.name()
        ),
        fix: Fix::sql(remedy),
        is_refused: true,
    }
}

/// Columns that a policy gives and the table does not have.
fn unknown_columns(policy: &TablePolicy, relation: &Relation) -> Option<Misfit> {
    let there: Vec<&str> = relation.columns().iter().map(|column| column.name.as_str()).collect();
    let given = policy.columns()?.iter();
    let unknown: Vec<&str> = given.map(String::as_str).filter(|column| !there.contains(column)).collect();
    let first = unknown.first()?;
    let near = suggestion(first, there.iter().copied());
    let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
    Some(Misfit {
        place: policy.place(),
        problem: format!("gives columns that {} does not publish: {}", relation.name(), unknown.join(", ")),
        fix: Fix::from(format!("correct its columns{near}")),
        is_refused: false,
    })
}

/// The tables that can be had, and those that could.
#[derive(Debug)]
struct Names<'a> {
    /// By the names that the stream has.
    published: Vec<RelationName>,
    /// Of the database, whether published or not.
    there: &'a [TableFacts],
    /// walcast's.
    role: &'a str,
}

impl Names<'_> {
    /// A policy that names what is not published gives nobody anything.
    fn misfits(&self, policies: &Policies) -> Vec<Misfit> {
        let is_missing = |pattern: &TablePattern| !self.published.iter().any(|table| pattern.matches(table));
        let mut named: Vec<(&TablePattern, Place)> =
            policies.patterns().into_iter().map(|(pattern, policy)| (pattern, policy.place())).collect();
        // Once for all its roles.
        named.dedup();
        let missing = named.into_iter().filter(|(pattern, _)| is_missing(pattern));
        let misfit = |(pattern, place): (&TablePattern, Place)| Misfit {
            place,
            problem: format!("names {pattern}, of which nothing is published: it gives nothing"),
            fix: self.fix(pattern),
            is_refused: false,
        };
        missing.map(misfit).collect()
    }

    fn fix(&self, pattern: &TablePattern) -> Fix {
        let TablePattern::Table(name) = pattern else {
            return Fix::from("correct the schema, or take the policy out".to_owned());
        };
        Fix::from(match self.there.iter().find(|table| table.name == *name) {
            Some(table) if table.partitioned => {
                format!(
                    "name the partitions of {name}, or {}: rows go by the names of their partitions",
                    TablePattern::Schema(name.schema.clone())
                )
            }
            Some(table) => {
                let fix = format!("take the policy out; or publish {name} (the setting tables)");
                return match table.grant_to(self.role) {
                    Some(grant) => Fix::from(format!("{fix} and let walcast read it:")).then(Fix::sql(grant)),
                    None => fix.into(),
                };
            }
            None => {
                let names: Vec<String> = self.published.iter().map(ToString::to_string).collect();
                let near = suggestion(&name.to_string(), names.iter().map(String::as_str));
                let near = near.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default();
                format!("there is no table {name}: correct the name{near}, or take the policy out")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::{Oid, RelationName};
    use walcast_policy::Policies;
    use walcast_replication::publication::{IdentityFacts, TableFacts};

    use super::Names;

    fn table(name: &str, partitioned: bool) -> TableFacts {
        TableFacts {
            oid: Oid::new(1),
            name: name.parse().unwrap(),
            partitioned,
            root: None,
            permanent: true,
            extension: false,
            owned: true,
            usage: true,
            select: name != "public.secrets",
            identity: IdentityFacts::Usable,
        }
    }

    #[test]
    fn what_a_policy_names_and_nobody_publishes_is_found_with_what_mends_it() {
        let name = |text: &str| text.parse::<RelationName>().unwrap();
        let there = [
            table("public.orders", false),
            table("public.notes", false),
            table("public.secrets", false),
            table("public.days", true),
        ];
        let published = vec![name("public.orders"), name("public.days_1")];
        let names = Names { published, there: &there, role: "w" };
        let named = [
            "public.orders",
            "*",
            "public.*",
            "public.order",
            "public.notes",
            "public.secrets",
            "public.days",
            "shop.*",
        ];
        // Once, also where it is for two roles.
        let text: String =
            named.map(|table| format!("[[policy]]\nrole = ['a', 'b']\ntable = '{table}'\n")).concat();
        let found = names.misfits(&Policies::parse(&text).unwrap());
        let fixes: Vec<String> = found.iter().map(|misfit| misfit.fix.to_string()).collect();
        assert_eq!(
            fixes,
            [
                "there is no table public.order: correct the name (did you mean public.orders?), or take the policy out",
                "take the policy out; or publish public.notes (the setting tables)",
                "take the policy out; or publish public.secrets (the setting tables) and let walcast read it: \
                 GRANT SELECT ON \"public\".\"secrets\" TO \"w\";",
                "name the partitions of public.days, or public.*: rows go by the names of their partitions",
                "correct the schema, or take the policy out",
            ]
        );
        assert_eq!(found[0].problem, "names public.order, of which nothing is published: it gives nothing");
        assert!(found.iter().all(|misfit| !misfit.is_refused));
    }
}
