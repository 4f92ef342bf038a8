//! Whether a policy fits a table, whoever's claims it is bound to.

use std::collections::BTreeSet;

use crate::claims::{Claims, Policy};
use crate::error::FilterError;
use crate::schema::Schema;
use crate::syntax::{Expression, Term, TermKind};
use crate::transition::Requirements;

impl Policy {
    /// What it needs of the table for every bearer: each column that it names counts, also one that the claims of some
    /// of them make irrelevant.
    ///
    /// # Errors
    /// When it cannot be bound to the table, with any claims: an unknown column, an operator that the type does not have.
    pub fn requirements(&self, schema: &Schema) -> Result<Requirements, FilterError> {
        // Without claims each of them is NULL, which has every type.
        self.bind_claims(&Claims::default())?.bind(schema)?;
        let named = columns(&self.expression);
        let indexes: BTreeSet<usize> = named.into_iter().filter_map(|name| schema.find(name)).collect();
        Ok(Requirements::of(schema.relation(), indexes.into_iter()))
    }
}

fn columns(expression: &Expression) -> Vec<&str> {
    let terms: Vec<&Term> = match expression {
        Expression::Or(parts) | Expression::And(parts) => return parts.iter().flat_map(columns).collect(),
        Expression::Not(of) | Expression::Truth { of, .. } => return columns(of),
        Expression::Compare { left, right, .. }
        | Expression::Distinct { left, right, .. }
        | Expression::Quantified { left, right, .. }
        | Expression::Containment { left, right, .. } => vec![left, right],
        Expression::Like { left, pattern, .. } => vec![left, pattern],
        Expression::In { left: of, .. } | Expression::Null { of, .. } | Expression::Term(of) => vec![of],
    };
    terms
        .into_iter()
        .filter_map(|term| match &term.kind {
            TermKind::Column { name, .. } => Some(name.as_str()),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use walcast_model::{Column, Oid, Relation, RelationName, ReplicaIdentity};

    use crate::{Collation, Policy, Refusal, Schema};

    fn orders(identity: ReplicaIdentity) -> Schema {
        let column = |name: &str, oid: u32, key| Column {
            name: name.to_owned(),
            type_name: "any".to_owned(),
            type_oid: Oid::new(oid),
            key,
            nullable: !key,
        };
        let columns =
            vec![column("id", 20, true), column("customer_id", 20, false), column("region", 25, false)];
        let relation = Relation::new(Oid::new(1), RelationName::new("public", "orders"), identity, columns);
        let schema = Schema::builder(Arc::new(relation)).with_database(Collation::C, true);
        schema.with_collation("region", Collation::C).build()
    }

    fn missing(policy: &str, identity: ReplicaIdentity) -> Vec<String> {
        Policy::parse(policy).unwrap().requirements(&orders(identity)).unwrap().missing
    }

    #[test]
    fn every_column_that_is_named_must_be_in_the_identity_whatever_the_claims_are() {
        let default = |policy| missing(policy, ReplicaIdentity::Default);
        assert_eq!(default("customer_id = claims.sub"), ["customer_id"]);
        assert_eq!(default("id = claims.sub"), [""; 0]);
        let many = "claims.boss = 'yes' OR region = ANY (claims.regions) AND customer_id IS NOT NULL AND NOT id IN (1)";
        assert_eq!(default(many), ["customer_id", "region"]);
        assert_eq!(missing(many, ReplicaIdentity::Full), [""; 0]);
        assert_eq!(missing("id = claims.sub", ReplicaIdentity::Nothing), ["id"]);
        let requirements = Policy::parse("customer_id = claims.sub").unwrap();
        let requirements = requirements.requirements(&orders(ReplicaIdentity::Default)).unwrap();
        let statement = r#"ALTER TABLE "public"."orders" REPLICA IDENTITY FULL;"#;
        assert_eq!(requirements.remedy.as_deref(), Some(statement));
    }

    #[test]
    fn what_no_claims_can_mend_is_an_error() {
        let error = |policy| {
            let policy = Policy::parse(policy).unwrap();
            policy.requirements(&orders(ReplicaIdentity::Full)).unwrap_err().refusal()
        };
        assert_eq!(error("customer = claims.sub"), Refusal::UnknownColumn);
        assert_eq!(error("id LIKE 'a%' AND region = claims.region"), Refusal::Type);
    }
}
