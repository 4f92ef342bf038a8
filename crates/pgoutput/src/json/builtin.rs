//! The types that every Postgres has, by the oids that `pg_type.dat` gives them for good.
//!
//! Row types of catalog tables are not among them: their fields differ between versions.

use walcast_model::Oid;

use super::types::TypeKind;

const INT2: u32 = 21;
const OID: u32 = 26;
const BOX_ARRAY: u32 = 1020;

/// What a built-in type is; `None` for all others.
pub(super) fn builtin(oid: Oid) -> Option<TypeKind> {
    let oid = oid.get();
    Some(match oid {
        16 => TypeKind::Bool,
        20 | 21 | 23 => TypeKind::Integer,
        700 | 701 | 1700 => TypeKind::Number,
        1114 => TypeKind::Timestamp,
        1184 => TypeKind::TimestampTz,
        114 => TypeKind::Json,
        3802 => TypeKind::Jsonb,
        22 => TypeKind::Vector { element: Oid::new(INT2) },
        30 => TypeKind::Vector { element: Oid::new(OID) },
        _ if TEXTS.binary_search(&oid).is_ok() => TypeKind::Text,
        _ => {
            let at = ARRAYS.binary_search_by_key(&oid, |(array, _)| *array).ok()?;
            let (_, element) = ARRAYS.get(at)?;
            let delimiter = if oid == BOX_ARRAY { b';' } else { b',' };
            TypeKind::Array { element: Oid::new(*element), delimiter }
        }
    })
}

/// Base types, ranges and multiranges whose JSON is a string of their text form; `cstring` as an element.
#[rustfmt::skip]
const TEXTS: &[u32] = &[
    17, 18, 19, 24, 25, 26, 27, 28, 29, 142, 194, 600, 601, 602, 603, 604, 628, 650, 718, 774, 790, 829,
    869, 1033, 1042, 1043, 1082, 1083, 1186, 1266, 1560, 1562, 1790, 2202, 2203, 2204, 2205, 2206, 2275,
    2950, 2970, 3220, 3361, 3402, 3614, 3615, 3642, 3734, 3769, 3904, 3906, 3908, 3910, 3912, 3926, 4072,
    4089, 4096, 4191, 4451, 4532, 4533, 4534, 4535, 4536, 4600, 4601, 5017, 5038, 5069,
];

/// Array types and their elements.
#[rustfmt::skip]
const ARRAYS: &[(u32, u32)] = &[
    (143, 142), (199, 114), (271, 5069), (629, 628), (651, 650), (719, 718), (775, 774), (791, 790),
    (1000, 16), (1001, 17), (1002, 18), (1003, 19), (1005, 21), (1006, 22), (1007, 23), (1008, 24),
    (1009, 25), (1010, 27), (1011, 28), (1012, 29), (1013, 30), (1014, 1042), (1015, 1043), (1016, 20),
    (1017, 600), (1018, 601), (1019, 602), (1020, 603), (1021, 700), (1022, 701), (1027, 604), (1028, 26),
    (1034, 1033), (1040, 829), (1041, 869), (1115, 1114), (1182, 1082), (1183, 1083), (1185, 1184),
    (1187, 1186), (1231, 1700), (1263, 2275), (1270, 1266), (1561, 1560), (1563, 1562), (2201, 1790),
    (2207, 2202), (2208, 2203), (2209, 2204), (2210, 2205), (2211, 2206), (2949, 2970), (2951, 2950),
    (3221, 3220), (3643, 3614), (3644, 3642), (3645, 3615), (3735, 3734), (3770, 3769), (3807, 3802),
    (3905, 3904), (3907, 3906), (3909, 3908), (3911, 3910), (3913, 3912), (3927, 3926), (4073, 4072),
    (4090, 4089), (4097, 4096), (4192, 4191), (5039, 5038), (6150, 4451), (6151, 4532), (6152, 4533),
    (6153, 4534), (6155, 4535), (6157, 4536),
];

#[cfg(test)]
mod tests {
    use super::{ARRAYS, TEXTS};

    #[test]
    fn the_tables_can_be_searched() {
        assert!(TEXTS.is_sorted_by(|left, right| left < right));
        assert!(ARRAYS.is_sorted_by(|left, right| left.0 < right.0));
    }
}
