//! Which type is written how.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use walcast_model::{Lsn, Oid};

use super::array::ArrayWriter;
use super::builtin::builtin;
use super::composite::CompositeWriter;
use super::{ValueError, ValueWriter, Writer};

/// How deep types may be nested (arrays of composites of arrays …); what is deeper is written in its text form.
pub const TYPE_DEPTH_MAX: usize = 64;

/// What a type is, as far as its JSON is concerned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TypeKind {
    /// A string of the text form: enums, ranges, multiranges, and all base types that are nothing else here.
    Text,
    /// `true` and `false`.
    Bool,
    /// A number that prints as digits only.
    Integer,
    /// A float or numeric.
    Number,
    /// A timestamp without time zone.
    Timestamp,
    /// A timestamp with time zone.
    TimestampTz,
    /// `json`.
    Json,
    /// `jsonb`.
    Jsonb,
    /// The extension's hstore.
    Hstore,
    /// An array: `pg_type.typsubscript` is `array_subscript_handler` and its text is in braces.
    Array {
        /// `pg_type.typelem`.
        element: Oid,
        /// `pg_type.typdelim` of the element type: a comma, for `box` a semicolon.
        delimiter: u8,
    },
    /// `int2vector` and `oidvector`.
    Vector {
        /// `pg_type.typelem`.
        element: Oid,
    },
    /// A composite type, or a table's row type.
    Composite {
        /// Its attributes in the order of their numbers, dropped ones too as far as values may still have them.
        attributes: Vec<Attribute>,
    },
    /// A domain.
    Domain {
        /// `pg_type.typbasetype`.
        base: Oid,
    },
    /// A base type, enum, range or multirange with a cast to `json` by a function, which only the server can run.
    Cast,
    /// The same, with a function that walcast must not run.
    UntrustedCast,
    /// A type that the catalog does not have any more.
    Dropped,
}

/// An attribute of a composite type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    /// `pg_attribute.attnum`.
    pub number: i16,
    /// From here on in the WAL it is certain that values have it, or do not have it any more.
    pub since: Lsn,
    /// Its name and type; `None` when it is dropped.
    pub live: Option<(String, Oid)>,
}

/// The first object id that is not of the server's own making (`FirstNormalObjectId`).
const FIRST_NORMAL_OID: u32 = 16_384;

/// The types of one database: the built-in ones, and what it was told of the others.
#[derive(Clone, Debug, Default)]
pub struct Types {
    known: HashMap<Oid, TypeKind>,
    revision: u64,
}

impl TypeKind {
    /// A composite that has these attributes for certain.
    #[must_use]
    pub fn composite(fields: impl IntoIterator<Item = (String, Oid)>) -> Self {
        let attributes = (1..).zip(fields).map(|(number, field)| Attribute {
            number,
            since: Lsn::ZERO,
            live: Some(field),
        });
        Self::Composite { attributes: attributes.collect() }
    }

    /// The types that it is made of.
    fn parts(&self) -> impl Iterator<Item = Oid> {
        let (one, attributes) = match self {
            Self::Array { element, .. } | Self::Vector { element } => (Some(*element), [].as_slice()),
            Self::Domain { base } => (Some(*base), [].as_slice()),
            Self::Composite { attributes } => (None, attributes.as_slice()),
            _ => (None, [].as_slice()),
        };
        let live = attributes.iter().filter_map(|attribute| attribute.live.as_ref());
        one.into_iter().chain(live.map(|(_, oid)| *oid))
    }
}

impl Types {
    /// The built-in types, their arrays and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what a type is, by a reading of the catalog that is later than those before it. Writers that exist already
    /// stay as they are.
    ///
    /// What a composite had in an earlier reading too it has had since then. A type that is gone stays what it was.
    pub fn insert(&mut self, oid: Oid, mut kind: TypeKind) {
        match (self.known.get(&oid), &mut kind) {
            (Some(TypeKind::Composite { attributes: before }), TypeKind::Composite { attributes }) => {
                for attribute in attributes {
                    let at = before.binary_search_by_key(&attribute.number, |before| before.number);
                    if let Some(before) = at.ok().and_then(|at| before.get(at))
                        && before.live.is_some() == attribute.live.is_some()
                    {
                        attribute.since = before.since.min(attribute.since);
                    }
                }
            }
            (Some(_), TypeKind::Dropped) => return,
            _ => {}
        }
        if self.known.get(&oid) != Some(&kind) {
            self.revision += 1;
            self.known.insert(oid, kind);
        }
    }

    /// Whether the type is known to be gone, and nothing else of it.
    #[must_use]
    pub fn is_dropped(&self, oid: Oid) -> bool {
        self.known.get(&oid) == Some(&TypeKind::Dropped)
    }

    /// Grows whenever a type is said to be something else than before.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// What `oids` are made of, themselves included, as far as users can alter it; in ascending order.
    #[must_use]
    pub fn alterable(&self, oids: impl IntoIterator<Item = Oid>) -> Vec<Oid> {
        let alterable = self.reach(oids).into_keys();
        alterable.filter(|oid| oid.get() >= FIRST_NORMAL_OID).collect()
    }

    /// Whether the type is known; what it is made of may still be missing.
    #[must_use]
    pub fn contains(&self, oid: Oid) -> bool {
        self.known.contains_key(&oid) || builtin(oid).is_some()
    }

    /// The types that have to be told before `oids` can be written: those of them that are not known, and those that
    /// known ones are made of, in ascending order. Tell what they are and ask again, until there are none.
    #[must_use]
    pub fn missing(&self, oids: impl IntoIterator<Item = Oid>) -> Vec<Oid> {
        let missing = self.reach(oids).into_iter().filter(|(_, is_known)| !is_known);
        missing.map(|(oid, _)| oid).collect()
    }

    /// `oids` and all that they are made of, each with whether it is known.
    fn reach(&self, oids: impl IntoIterator<Item = Oid>) -> BTreeMap<Oid, bool> {
        let (mut open, mut reached): (Vec<Oid>, _) = (oids.into_iter().collect(), BTreeMap::new());
        while let Some(oid) = open.pop() {
            if reached.contains_key(&oid) {
                continue;
            }
            let kind = self.kind(oid);
            reached.insert(oid, kind.is_some());
            open.extend(kind.iter().flat_map(TypeKind::parts));
        }
        reached
    }

    fn kind(&self, oid: Oid) -> Option<TypeKind> {
        self.known.get(&oid).cloned().or_else(|| builtin(oid))
    }

    /// What writes values of this type. A type that is not known is written as a string of its text form, and so is
    /// one that contains itself, which Postgres does not allow.
    #[must_use]
    pub fn writer(&self, oid: Oid) -> ValueWriter {
        ValueWriter(self.resolve(oid, TYPE_DEPTH_MAX, &mut HashMap::new()))
    }

    /// `resolved` keeps what was resolved before: a type can occur in another more often than anybody can count.
    fn resolve(&self, oid: Oid, depth_left: usize, resolved: &mut HashMap<Oid, Writer>) -> Writer {
        if let Some(writer) = resolved.get(&oid) {
            return writer.clone();
        }
        let (Some(kind), Some(depth_left)) = (self.kind(oid), depth_left.checked_sub(1)) else {
            return Writer::Text;
        };
        resolved.insert(oid, Writer::Text);
        let mut part = |oid| self.resolve(oid, depth_left, resolved);
        let writer = match kind {
            TypeKind::Text => Writer::Text,
            TypeKind::Bool => Writer::Bool,
            TypeKind::Integer => Writer::Integer,
            TypeKind::Number => Writer::Number,
            TypeKind::Timestamp => Writer::Timestamp,
            TypeKind::TimestampTz => Writer::TimestampTz,
            TypeKind::Json => Writer::Json,
            TypeKind::Jsonb => Writer::Jsonb,
            TypeKind::Hstore => Writer::Hstore,
            TypeKind::Array { element, delimiter } => {
                Writer::Array(Arc::new(ArrayWriter { element: part(element), delimiter }))
            }
            TypeKind::Vector { element } => Writer::Vector(Arc::new(part(element))),
            TypeKind::Composite { attributes } => {
                let attributes = attributes.iter().map(|attribute| {
                    let live = attribute.live.as_ref().map(|(name, oid)| (name.as_str(), part(*oid)));
                    (attribute.since, live)
                });
                Writer::Composite(Arc::new(CompositeWriter::new(attributes)))
            }
            TypeKind::Domain { base } => part(base),
            TypeKind::Cast => Writer::Converted(oid),
            TypeKind::UntrustedCast => Writer::Impossible(ValueError::UntrustedCast),
            TypeKind::Dropped => Writer::Impossible(ValueError::Dropped),
        };
        resolved.insert(oid, writer.clone());
        writer
    }
}
