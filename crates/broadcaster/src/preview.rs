//! What a subscription is sent of a row or a change, by the code that sends it: what `walcast explain` asks.

use std::sync::Arc;

use serde_json::value::RawValue;
use walcast_filter::{Schema, Undecided};
use walcast_model::{Part, Relation};
use walcast_policy::Rights;
use walcast_protocol::{
    Change, ParseSubscriptionIdError, ServerMessage, Subscribe, SubscriptionId, TableSelection,
};

use crate::encode::{self, Gap, Heads, Projection, View, project_rows};
use crate::refusal::Refusal;
use crate::request::Request;
use crate::wanted::{Choice, ShapeKey, Wanted};

/// A subscription to one table that nobody has.
#[derive(Debug)]
pub struct Preview {
    id: SubscriptionId,
    wanted: Wanted,
}

impl Preview {
    /// For a client with these rights.
    ///
    /// # Errors
    /// When it would be refused at once.
    pub fn new(table: TableSelection, rights: &Rights) -> Result<Self, Refusal> {
        let id =
            "preview".parse().map_err(|error: ParseSubscriptionIdError| Refusal::bad(error.to_string()))?;
        let subscribe = Subscribe { tables: vec![table], ..Subscribe::new(id, Vec::new()) };
        let request = Request::try_from(subscribe)?;
        let key = ShapeKey::resolve(&request.tables, rights)?;
        Ok(Self { id: request.id, wanted: Wanted::new(Arc::new(key)) })
    }

    /// Makes it ready for rows and changes of the table in this definition.
    ///
    /// # Errors
    /// When a subscription would be refused because of it.
    pub fn bind(&self, schema: &Schema) -> Result<(), Refusal> {
        self.wanted.bind(&Arc::new(schema.clone())).map_err(|why| why.into_refusal(schema.relation().name()))
    }

    /// What is sent of the change at this index of a part; `None` for nothing, also where it is not bound to the change's
    /// definition.
    ///
    /// # Errors
    /// When it cannot be told, for want of a column.
    pub fn of_change(&self, part: &Part, index: usize) -> Result<Option<Change>, Undecided> {
        let only = [u32::try_from(index).unwrap_or(u32::MAX)];
        let encoded = encode::part(part, &self.wanted, View { only: Some(&only), ..View::whole() });
        if let Some(Gap::Undecided { column, .. }) = encoded.gap {
            return Err(Undecided { column });
        }
        let heads = Heads::new(&self.id);
        let mut changes = encoded.runs.into_iter().filter_map(|run| {
            let frame = heads.transaction(run.tail, run.piece);
            let text = [frame.head, frame.tail].concat();
            match ServerMessage::decode(std::str::from_utf8(&text).ok()?).ok()? {
                ServerMessage::Transaction(message) => message.changes.into_iter().next(),
                _ => None,
            }
        });
        Ok(changes.next())
    }

    /// What an initial sync sends of a row, as it would if this side looked at the filter; `None` for nothing.
    #[must_use]
    pub fn of_row(&self, relation: &Relation, row: &[u8]) -> Option<Box<RawValue>> {
        let is_taken = match self.wanted.choice(relation)? {
            Choice::Everything => true,
            Choice::Rows(predicate) => predicate.evaluate(row).matches().unwrap_or(false),
            Choice::Nothing | Choice::Withheld | Choice::Unfit => false,
        };
        let selection = self.wanted.of(relation.name()).filter(|_| is_taken)?;
        let mut out = Vec::new();
        match Projection::new(relation, selection) {
            Some(projection) => project_rows(&mut out, &projection, row),
            None => out.extend_from_slice(row),
        }
        RawValue::from_string(String::from_utf8(out).ok()?).ok()
    }
}

/// The key of a row as the feed writes it.
#[must_use]
pub fn key_of(relation: &Relation, row: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::write_key(&mut out, relation, row);
    out
}
