//! Which type is written how.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use walcast_model::Oid;

use super::array::ArrayWriter;
use super::builtin::builtin;
use super::composite::CompositeWriter;
use super::{ValueWriter, Writer};

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
        /// Names and types of its attributes in the order of `attnum`, without dropped ones.
        fields: Vec<(String, Oid)>,
    },
    /// A domain.
    Domain {
        /// `pg_type.typbasetype`.
        base: Oid,
    },
}

/// The types of one database: the built-in ones, and what it was told of the others.
#[derive(Clone, Debug, Default)]
pub struct Types {
    known: HashMap<Oid, TypeKind>,
}

impl TypeKind {
    /// The types that it is made of.
    fn parts(&self) -> impl Iterator<Item = Oid> {
        let (one, fields) = match self {
            Self::Array { element, .. } | Self::Vector { element } => (Some(*element), [].as_slice()),
            Self::Domain { base } => (Some(*base), [].as_slice()),
            Self::Composite { fields } => (None, fields.as_slice()),
            _ => (None, [].as_slice()),
        };
        one.into_iter().chain(fields.iter().map(|(_, oid)| *oid))
    }
}

impl Types {
    /// The built-in types, their arrays and nothing else.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what a type is; replaces what was said before. Writers that exist already stay as they are.
    pub fn insert(&mut self, oid: Oid, kind: TypeKind) {
        self.known.insert(oid, kind);
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
        let mut open: Vec<Oid> = oids.into_iter().collect();
        let (mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new());
        while let Some(oid) = open.pop() {
            if !seen.insert(oid) {
                continue;
            }
            match self.kind(oid) {
                Some(kind) => open.extend(kind.parts()),
                None => {
                    missing.insert(oid);
                }
            }
        }
        missing.into_iter().collect()
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
            TypeKind::Composite { fields } => {
                let fields = fields.iter().map(|(name, oid)| (name.as_str(), part(*oid)));
                Writer::Composite(Arc::new(CompositeWriter::new(fields.collect())))
            }
            TypeKind::Domain { base } => part(base),
        };
        resolved.insert(oid, writer.clone());
        writer
    }
}

#[cfg(test)]
mod tests {
    use walcast_model::Oid;

    use super::{TypeKind, Types};
    use crate::json::ValueError;

    const TEXT: u32 = 25;
    const INT4: u32 = 23;
    const INT4_ARRAY: u32 = 1007;

    fn composite(fields: &[(&str, u32)]) -> TypeKind {
        TypeKind::Composite {
            fields: fields.iter().map(|(name, oid)| ((*name).to_owned(), Oid::new(*oid))).collect(),
        }
    }

    fn written(types: &Types, oid: u32, text: &str) -> Result<String, ValueError> {
        let mut out = Vec::new();
        types.writer(Oid::new(oid)).write(text.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn arrays_of_every_shape_are_written() {
        let types = Types::new();
        for (oid, text, expected) in [
            (INT4_ARRAY, "{}", "[]"),
            (INT4_ARRAY, "{1,NULL,-3}", "[1, null, -3]"),
            (INT4_ARRAY, "[0:1][5:5]={{1},{2}}", "[[1], [2]]"),
            (1009, r#"{a,"b,\"c\\","NULL",NULL,"",é}"#, r#"["a", "b,\"c\\", "NULL", null, "", "é"]"#),
            (1020, "{(3,4),(1,2);(7,8),(5,6)}", r#"["(3,4),(1,2)", "(7,8),(5,6)"]"#),
            (22, "1 2", "[1, 2]"),
            (30, "1 2", r#"["1", "2"]"#),
            (30, "", "[]"),
            (1006, r#"{"1 2",3}"#, "[[1, 2], [3]]"),
        ] {
            assert_eq!(written(&types, oid, text).as_deref(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "{",
            "{1",
            "{1}x",
            "{1,}",
            "{,1}",
            "1",
            "{\"1}",
            "[1={1}",
            "[1:1]",
            "{{{{{{{1}}}}}}}",
            "{1}{2}",
            "{{1}2}",
        ] {
            assert!(written(&types, INT4_ARRAY, text).is_err(), "{text}");
        }
    }

    #[test]
    fn composites_are_objects_with_the_keys_of_jsonb() {
        let mut types = Types::new();
        types.insert(Oid::new(70_000), composite(&[("bb", INT4), ("a\"", TEXT), ("c", 70_001)]));
        types.insert(Oid::new(70_001), composite(&[("x", INT4_ARRAY)]));
        let text = r#"(1,"q "" \\ , z","(""{1,2}"")")"#;
        let expected = r#"{"c": {"x": [1, 2]}, "a\"": "q \" \\ , z", "bb": 1}"#;
        assert_eq!(written(&types, 70_000, text).as_deref(), Ok(expected));
        assert_eq!(
            written(&types, 70_000, r#"(,"",)"#).as_deref(),
            Ok(r#"{"c": null, "a\"": "", "bb": null}"#)
        );
        assert_eq!(written(&types, 70_001, "()").as_deref(), Ok(r#"{"x": null}"#));
        assert_eq!(written(&types, 70_000, "(1,2)"), Err(ValueError::Fields { expected: 3, found: 2 }));
        for text in ["", "(", ")", "(,,", "(,,)x", "(x,,)", r#"(,"a,)"#, r#"(,"a"b,)"#] {
            assert!(written(&types, 70_000, text).is_err(), "{text}");
        }
        types.insert(Oid::new(70_002), composite(&[]));
        assert_eq!(written(&types, 70_002, "()").as_deref(), Ok("{}"));
    }

    #[test]
    fn hstore_is_an_object_of_strings() {
        let mut types = Types::new();
        types.insert(Oid::new(70_000), TypeKind::Hstore);
        let text = r#""a"=>"1", "b\"\\"=>NULL, "NULL"=>"NULL""#;
        let expected = r#"{"a": "1", "b\"\\": null, "NULL": "NULL"}"#;
        assert_eq!(written(&types, 70_000, text).as_deref(), Ok(expected));
        assert_eq!(written(&types, 70_000, "").as_deref(), Ok("{}"));
        for text in ["a", r#""a""#, r#""a"=>"#, r#""a"=>"b", "#, r#""a"=>"b","c"=>"d""#] {
            assert!(written(&types, 70_000, text).is_err(), "{text}");
        }
    }

    #[test]
    fn missing_types_are_found_through_known_ones() {
        let mut types = Types::new();
        let missing = |types: &Types, oid| types.missing([Oid::new(oid)]);
        assert_eq!(missing(&types, INT4_ARRAY), []);
        assert_eq!(missing(&types, 70_000), [Oid::new(70_000)]);
        types.insert(Oid::new(70_000), TypeKind::Array { element: Oid::new(70_001), delimiter: b',' });
        types.insert(Oid::new(70_001), composite(&[("a", 70_002), ("b", INT4), ("c", 70_003)]));
        types.insert(Oid::new(70_002), TypeKind::Domain { base: Oid::new(TEXT) });
        assert_eq!(missing(&types, 70_000), [Oid::new(70_003)]);
        assert_eq!(written(&types, 70_003, "x").as_deref(), Ok("\"x\""), "unknown types are texts");
    }

    #[test]
    fn types_that_contain_themselves_or_others_often_are_resolved_at_once() {
        let mut types = Types::new();
        types.insert(Oid::new(70_000), composite(&[("a", 70_000), ("b", 70_000)]));
        assert_eq!(written(&types, 70_000, "(x,y)").as_deref(), Ok(r#"{"a": "x", "b": "y"}"#));
        for oid in 70_001..70_060 {
            types.insert(Oid::new(oid), composite(&[("a", oid - 1), ("b", oid - 1)]));
        }
        assert_eq!(written(&types, 70_059, "(,)").as_deref(), Ok(r#"{"a": null, "b": null}"#));
    }

    #[test]
    fn an_error_leaves_the_output_as_it_was() {
        let mut out = b"before".to_vec();
        assert!(Types::new().writer(Oid::new(INT4_ARRAY)).write(b"{1,2,x}", &mut out).is_err());
        assert_eq!(out, b"before");
    }
}
