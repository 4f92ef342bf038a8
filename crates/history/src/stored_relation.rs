//! A relation's definition as `walcast.relation.definition` holds it.

use serde::{Deserialize, Serialize};
use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};

use crate::Error;

/// Fields are only ever added: what an older walcast wrote stays readable, and it ignores what it does not know.
#[derive(Serialize, Deserialize)]
struct Definition<C> {
    identity: ReplicaIdentity,
    columns: C,
}

/// The JSON to store.
pub(crate) fn definition(relation: &Relation) -> Result<String, Error> {
    let definition = Definition { identity: relation.identity(), columns: relation.columns() };
    serde_json::to_string(&definition).map_err(|error| unreadable(&error))
}

/// The relation that was stored.
pub(crate) fn relation(oid: u32, schema: String, table: String, definition: &str) -> Result<Relation, Error> {
    let definition: Definition<Vec<Column>> =
        serde_json::from_str(definition).map_err(|error| unreadable(&error))?;
    Ok(Relation::new(
        Oid::new(oid),
        RelationName::new(schema, table),
        definition.identity,
        definition.columns,
    ))
}

fn unreadable(error: &serde_json::Error) -> Error {
    Error::Unreadable { what: "table definition", problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};

    #[test]
    fn a_definition_survives_being_stored() {
        let column = |name: &str, key| Column {
            name: name.into(),
            type_name: "numeric(10,2)".into(),
            type_oid: Oid::new(1700),
            key,
            nullable: !key,
        };
        let columns = vec![column("id", true), column("odd \"name\"", false)];
        let relation =
            Relation::new(Oid::new(7), RelationName::new("s.p", "ü"), ReplicaIdentity::Full, columns);
        let text = super::definition(&relation).unwrap();
        assert_eq!(super::relation(7, "s.p".into(), "ü".into(), &text).unwrap(), relation);
    }

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        let text = r#"{"identity":"default","columns":[{"name":"a","type":"text","type_oid":25,"key":false,"nullable":true,"x":1}],"y":2}"#;
        assert_eq!(super::relation(1, "s".into(), "t".into(), text).unwrap().columns().len(), 1);
    }
}
