//! The types that filters know, and what they are called.

use std::fmt;
use std::sync::Arc;

use walcast_model::Oid;

/// An enum type: its name as SQL, and its labels in their order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct EnumType {
    pub(crate) name: String,
    pub(crate) labels: Vec<String>,
}

/// A type, domains resolved to their base.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Type {
    Bool,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Varchar,
    Bpchar,
    Name,
    /// `"char"`.
    Char,
    Uuid,
    Bytea,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Inet,
    Cidr,
    Jsonb,
    Enum(Arc<EnumType>),
    Array(Box<Type>),
    /// `json`: its text in the feed is not the text in the table.
    Json,
    Composite,
    /// Anything else: only `IS NULL` can be asked of it.
    Other,
}

impl Type {
    /// The built-in types of which filters know more than whether they are NULL, by the oids of `pg_type.dat`.
    pub(crate) fn builtin(oid: Oid) -> Option<Self> {
        Some(match oid.get() {
            16 => Self::Bool,
            17 => Self::Bytea,
            18 => Self::Char,
            19 => Self::Name,
            20 => Self::Int8,
            21 => Self::Int2,
            23 => Self::Int4,
            25 => Self::Text,
            26 => Self::Oid,
            114 => Self::Json,
            650 => Self::Cidr,
            700 => Self::Float4,
            701 => Self::Float8,
            869 => Self::Inet,
            1042 => Self::Bpchar,
            1043 => Self::Varchar,
            1082 => Self::Date,
            1083 => Self::Time,
            1114 => Self::Timestamp,
            1184 => Self::TimestampTz,
            1186 => Self::Interval,
            1266 => Self::TimeTz,
            1700 => Self::Numeric,
            2950 => Self::Uuid,
            3802 => Self::Jsonb,
            other => {
                let at = ARRAYS.iter().find(|(array, _)| *array == other)?;
                Self::Array(Box::new(Self::builtin(Oid::new(at.1))?))
            }
        })
    }

    /// The type that a cast names, written as SQL in lower case with single spaces; without modifiers.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let name = name.strip_prefix("pg_catalog.").unwrap_or(name);
        if let Some(element) = name.strip_suffix("[]") {
            return Some(Self::Array(Box::new(Self::named(element)?)));
        }
        Some(match name {
            "bool" | "boolean" => Self::Bool,
            "int2" | "smallint" => Self::Int2,
            "int" | "int4" | "integer" => Self::Int4,
            "int8" | "bigint" => Self::Int8,
            "oid" => Self::Oid,
            "float4" | "real" => Self::Float4,
            "float" | "float8" | "double precision" => Self::Float8,
            "numeric" | "decimal" | "dec" => Self::Numeric,
            "text" => Self::Text,
            "varchar" | "character varying" | "char varying" => Self::Varchar,
            "bpchar" => Self::Bpchar,
            "name" => Self::Name,
            "\"char\"" => Self::Char,
            "uuid" => Self::Uuid,
            "bytea" => Self::Bytea,
            "date" => Self::Date,
            "time" | "time without time zone" => Self::Time,
            "timetz" | "time with time zone" => Self::TimeTz,
            "timestamp" | "timestamp without time zone" => Self::Timestamp,
            "timestamptz" | "timestamp with time zone" => Self::TimestampTz,
            "interval" => Self::Interval,
            "inet" => Self::Inet,
            "cidr" => Self::Cidr,
            "jsonb" => Self::Jsonb,
            _ => return None,
        })
    }

    /// Whether its values are strings that are compared as text.
    pub(crate) const fn is_text(&self) -> bool {
        matches!(self, Self::Text | Self::Varchar | Self::Name)
    }

    pub(crate) const fn is_integer(&self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8)
    }

    pub(crate) const fn is_float(&self) -> bool {
        matches!(self, Self::Float4 | Self::Float8)
    }

    /// Whether its values have a collation.
    pub(crate) const fn is_collatable(&self) -> bool {
        matches!(self, Self::Text | Self::Varchar | Self::Bpchar | Self::Name)
    }
}

/// As SQL, qualified so that no search path matters.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Enum(kind) => return f.write_str(&kind.name),
            Self::Array(element) => return write!(f, "{element}[]"),
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Oid => "oid",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Varchar => "varchar",
            Self::Bpchar => "bpchar",
            Self::Name => "name",
            Self::Char => "\"char\"",
            Self::Uuid => "uuid",
            Self::Bytea => "bytea",
            Self::Date => "date",
            Self::Time => "time",
            Self::TimeTz => "timetz",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamptz",
            Self::Interval => "interval",
            Self::Inet => "inet",
            Self::Cidr => "cidr",
            Self::Jsonb => "jsonb",
            Self::Json => "json",
            Self::Composite => "record",
            Self::Other => "unknown",
        };
        write!(f, "pg_catalog.{name}")
    }
}

/// Array types and their elements.
const ARRAYS: &[(u32, u32)] = &[
    (199, 114),
    (651, 650),
    (1000, 16),
    (1001, 17),
    (1002, 18),
    (1003, 19),
    (1005, 21),
    (1007, 23),
    (1009, 25),
    (1014, 1042),
    (1015, 1043),
    (1016, 20),
    (1021, 700),
    (1022, 701),
    (1028, 26),
    (1041, 869),
    (1115, 1114),
    (1182, 1082),
    (1183, 1083),
    (1185, 1184),
    (1187, 1186),
    (1231, 1700),
    (1270, 1266),
    (2951, 2950),
    (3807, 3802),
];
