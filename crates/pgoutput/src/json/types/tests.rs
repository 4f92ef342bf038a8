//! What types are written as, while they stay and while they change.

use walcast_model::{Lsn, Oid};

use super::{Attribute, TypeKind, Types};
use crate::json::{Conversions, ValueError};

const TEXT: u32 = 25;
const INT4: u32 = 23;
const INT4_ARRAY: u32 = 1007;

fn composite(fields: &[(&str, u32)]) -> TypeKind {
    TypeKind::composite(fields.iter().map(|(name, oid)| ((*name).to_owned(), Oid::new(*oid))))
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
    assert_eq!(written(&types, 70_000, r#"(,"",)"#).as_deref(), Ok(r#"{"c": null, "a\"": "", "bb": null}"#));
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

/// Attributes by number, since when, and name unless dropped; all of them texts.
fn altered(attributes: &[(i16, u64, Option<&str>)]) -> TypeKind {
    let attributes = attributes.iter().map(|(number, since, name)| Attribute {
        number: *number,
        since: Lsn::new(*since),
        live: name.map(|name| (name.to_owned(), Oid::new(TEXT))),
    });
    TypeKind::Composite { attributes: attributes.collect() }
}

fn written_at(types: &Types, at: u64, text: &str) -> Result<String, ValueError> {
    let (mut out, writer) = (Vec::new(), types.writer(Oid::new(70_000)));
    writer.write_at(text.as_bytes(), Lsn::new(at), &Conversions::default(), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_value_from_before_an_alteration_is_written_with_the_attributes_of_now_or_not_at_all() {
    let of = |attributes: &[(i16, u64, Option<&str>)], at, text| {
        let mut types = Types::new();
        types.insert(Oid::new(70_000), altered(attributes));
        written_at(&types, at, text)
    };
    let ambiguous = |found| Err(ValueError::Ambiguous { found });
    let added = [(1, 0, Some("a")), (2, 50, Some("b")), (3, 50, Some("c"))];
    let ok = |text: &str| Ok(text.to_owned());
    assert_eq!(of(&added, 49, "(1)"), ok(r#"{"a": "1", "b": null, "c": null}"#));
    assert_eq!(of(&added, 49, "(1,2)"), ok(r#"{"a": "1", "b": "2", "c": null}"#));
    assert_eq!(of(&added, 49, "(1,2,3)"), ok(r#"{"a": "1", "b": "2", "c": "3"}"#));
    assert_eq!(of(&added, 50, "(1)"), Err(ValueError::Fields { expected: 3, found: 1 }));
    let dropped = [(1, 0, Some("a")), (2, 50, None), (3, 0, Some("c"))];
    assert_eq!(of(&dropped, 49, "(1,2,3)"), ok(r#"{"a": "1", "c": "3"}"#));
    assert_eq!(of(&dropped, 49, "(1,3)"), ok(r#"{"a": "1", "c": "3"}"#));
    assert_eq!(of(&dropped, 49, "(1)"), Err(ValueError::Fields { expected: 2, found: 1 }));
    assert_eq!(of(&dropped, 50, "(1,3)"), ok(r#"{"a": "1", "c": "3"}"#));
    // The same length with one or the other: no guess.
    let exchanged = [(1, 0, Some("a")), (2, 50, None), (3, 60, Some("c"))];
    assert_eq!(of(&exchanged, 49, "(1,2)"), ambiguous(2));
    assert_eq!(of(&exchanged, 55, "(1)"), ok(r#"{"a": "1", "c": null}"#));
    assert_eq!(of(&exchanged, 55, "(1,3)"), ok(r#"{"a": "1", "c": "3"}"#));
    assert_eq!(of(&exchanged, 49, "(1,2,3)"), ok(r#"{"a": "1", "c": "3"}"#));
    assert_eq!(of(&exchanged, 49, "(1)"), ok(r#"{"a": "1", "c": null}"#));
    let both_dropped = [(1, 50, None), (2, 50, None), (3, 0, Some("c"))];
    assert_eq!(of(&both_dropped, 49, "(1,2,3)"), ok(r#"{"c": "3"}"#));
    assert_eq!(of(&both_dropped, 49, "(2,3)"), ambiguous(2));
    assert_eq!(of(&both_dropped, 49, "(3)"), ok(r#"{"c": "3"}"#));
    assert_eq!(of(&[(1, 50, None), (2, 50, Some("b"))], 49, "()"), ok(r#"{"b": null}"#));
    assert_eq!(of(&[(1, 50, None)], 49, "(1)"), ok("{}"));
}

#[test]
fn what_an_earlier_reading_had_is_certain_from_then_on() {
    let mut types = Types::new();
    types.insert(Oid::new(70_000), altered(&[(1, 0, Some("a")), (2, 50, Some("b"))]));
    let revision = types.revision();
    types.insert(Oid::new(70_000), altered(&[(1, 90, Some("a")), (2, 90, Some("b"))]));
    assert_eq!(types.revision(), revision, "nothing is different");
    // Renamed, dropped, added.
    types.insert(Oid::new(70_000), altered(&[(1, 90, Some("x")), (2, 90, None), (3, 90, Some("c"))]));
    assert!(types.revision() > revision);
    assert_eq!(written_at(&types, 60, "(1,2)"), Err(ValueError::Ambiguous { found: 2 }));
    assert_eq!(written_at(&types, 60, "(1)").as_deref(), Ok(r#"{"c": null, "x": "1"}"#));
    assert_eq!(written_at(&types, 90, "(1,3)").as_deref(), Ok(r#"{"c": "3", "x": "1"}"#));
    types.insert(Oid::new(70_000), TypeKind::Dropped);
    assert_eq!(written_at(&types, 90, "(1,3)").as_deref(), Ok(r#"{"c": "3", "x": "1"}"#), "is what it was");
    assert_eq!(types.alterable([Oid::new(70_000), Oid::new(INT4)]), [Oid::new(70_000)]);
}

#[test]
fn values_with_a_cast_are_asked_for_once_wherever_they_are_and_then_written() {
    let mut types = Types::new();
    types.insert(Oid::new(70_000), composite(&[("shapes", 70_001), ("n", INT4)]));
    types.insert(Oid::new(70_001), TypeKind::Array { element: Oid::new(70_002), delimiter: b':' });
    types.insert(Oid::new(70_002), TypeKind::Domain { base: Oid::new(70_003) });
    types.insert(Oid::new(70_003), TypeKind::Cast);
    let (writer, at) = (types.writer(Oid::new(70_000)), Lsn::ZERO);
    assert!(writer.is_converted() && !types.writer(Oid::new(INT4_ARRAY)).is_converted());
    let (mut conversions, mut wanted) = (Conversions::default(), Vec::new());
    let text = b"({A:NULL:B},1)";
    writer.collect(text, at, &conversions, &mut wanted);
    let texts: Vec<&[u8]> = wanted.iter().map(|wanted| &*wanted.text).collect();
    assert_eq!(texts, [b"A", b"B"]);
    assert_eq!(writer.write(text, &mut Vec::new()), Err(ValueError::NotConverted));
    for conversion in wanted.split_off(0) {
        assert_eq!(conversion.type_oid, Oid::new(70_003));
        conversions.insert(conversion, Some(b"{\"x\": 1}".as_slice().into()));
    }
    writer.collect(text, at, &conversions, &mut wanted);
    assert_eq!(wanted, []);
    let mut out = Vec::new();
    writer.write_at(text, at, &conversions, &mut out).unwrap();
    assert_eq!(out, br#"{"n": 1, "shapes": [{"x": 1}, null, {"x": 1}]}"#);
}
