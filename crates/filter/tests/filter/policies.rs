//! Policies: predicates with claims.

use walcast_filter::{Claims, Filter, FilterError, Policy, Predicate, Refusal, Verdict};
use walcast_model::ReplicaIdentity;

use super::pure::{bound, relation, schema};

const CLAIMS: &str = r#"{"sub": "ann", "id": 9007199254740993, "big": 123456789012345678901234567890, "admin": true,
    "roles": ["editor", "it's", null], "numbers": [1, "2"], "none": [], "org": {"id": 7, "Name": "x"}, "null": null,
    "evil": "x' OR '1'='1", "userId": 5, "https://walcast.example/a.claim-with-a-long-name-that-no-column-could-have": "u"}"#;

fn policy(text: &str) -> Result<Predicate, FilterError> {
    let filter = Policy::parse(text)?.bind_claims(&Claims::parse(CLAIMS)?)?;
    filter.bind(&schema(relation(ReplicaIdentity::Default)))
}

fn same(text: &str, plain: &str) {
    let predicate = policy(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(predicate, bound(plain).expect(plain), "{text} is {}", predicate.to_sql());
}

#[test]
fn claims_are_literals_of_the_type_beside_them() {
    same("owner = claims.sub", "owner = 'ann'");
    same("claims.sub = owner", "owner = 'ann'");
    same("owner = claims.id", "owner = '9007199254740993'");
    same("id = claims.id", "id = 9007199254740993");
    same("num = claims.big", "num = 123456789012345678901234567890");
    same("flag = claims.admin", "flag");
    same("n = claims.org.id", "n = 7");
    same("owner = claims.org.Name", "owner = 'x'");
    same("n = claims.userId", "n = 5");
    same("n = claims.\"userId\"", "n = 5");
    let url = "claims.\"https://walcast.example/a.claim-with-a-long-name-that-no-column-could-have\"";
    same(&format!("owner = {url}"), "owner = 'u'");
    same("owner = ANY (claims.roles)", "owner = ANY ('{editor,\"it''s\",NULL}')");
    same("owner <> ALL (claims.roles)", "owner <> ALL ('{editor,\"it''s\",NULL}')");
    same("n = ANY (claims.numbers)", "n IN (1, 2)");
    same("owner = ANY (claims.sub)", "owner = 'ann'");
    same("tags && claims.roles", "tags && '{editor,\"it''s\",NULL}'");
    same("claims.sub = ANY (tags)", "'ann' = ANY (tags)");
    same("j @> claims.org", "j @> '{\"id\": 7, \"Name\": \"x\"}'");
    same("claims.sub IS NOT NULL", "TRUE");
    same("n BETWEEN claims.org.id AND 9", "n BETWEEN 7 AND 9");
}

#[test]
fn a_claim_that_is_not_there_is_null() {
    for text in [
        "owner = claims.nobody",
        "owner = claims.null",
        "owner = claims.org.nobody",
        "owner = claims.sub.nobody",
        "owner <> claims.nobody",
        "NOT owner = claims.nobody",
        "owner = ANY (claims.nobody)",
        "owner <> ALL (claims.nobody)",
        "tags && claims.nobody",
        "claims.nobody",
        "claims.nobody = 'a'",
        "n IN (1) AND owner LIKE NULL AND claims.nobody",
        "claims.Sub = 'ann'",
    ] {
        let predicate = policy(text).unwrap();
        for row in [r#"{"owner":"ann","n":1,"tags":[]}"#, r#"{"owner":null,"n":null,"tags":null}"#] {
            assert_eq!(predicate.evaluate(row.as_bytes()).matches(), Ok(false), "{text} on {row}");
        }
    }
    let nobody = policy("claims.nobody = ANY (tags)").unwrap();
    assert_eq!(nobody.evaluate(br#"{"tags":[]}"#), Verdict::False);
    assert_eq!(nobody.evaluate(br#"{"tags":["a"]}"#), Verdict::Null);
    same("claims.nobody IS NULL", "TRUE");
    same("owner = ANY (claims.none)", "FALSE");
    same("owner IS NOT DISTINCT FROM claims.nobody", "owner IS NULL");
}

#[test]
fn claims_beside_literals_decide_once_for_all_rows() {
    same("claims.sub = 'ann'", "TRUE");
    same("claims.sub <> 'ann'", "FALSE");
    same("claims.admin", "TRUE");
    same("NOT claims.admin", "FALSE");
    same("claims.org.id = 7", "TRUE");
    same("claims.org.id > 7", "FALSE");
    same("6.5 < claims.org.id", "TRUE");
    same("'editor' = ANY (claims.roles)", "TRUE");
    same("'editor' <> ALL (claims.roles)", "FALSE");
    same("'nobody' = ANY (claims.roles) OR owner = claims.sub", "owner = 'ann' OR NULL");
    same("claims.admin OR owner = claims.sub", "TRUE");
}

#[test]
fn a_claim_is_a_value_and_never_text_of_the_predicate() {
    let predicate = policy("owner = claims.evil").unwrap();
    assert_eq!(predicate, bound("owner = 'x'' OR ''1''=''1'").unwrap());
    assert_eq!(predicate.evaluate(br#"{"owner":"y"}"#), Verdict::False);
    assert_eq!(policy("owner LIKE claims.sub").unwrap_err().refusal(), Refusal::Claim);
    assert_eq!(policy("n = claims.sub").unwrap_err().refusal(), Refusal::Literal);
    assert_eq!(policy("owner = claims.roles").unwrap_err().refusal(), Refusal::Claim);
    assert_eq!(policy("owner = claims.org").unwrap_err().refusal(), Refusal::Claim);
    assert!(policy("owner = claims").is_err());
    assert!(policy("owner IN (claims.sub, 'x')").is_err());
    for json in ["", "[]", "1", "{", "{\"a\":}"] {
        assert_eq!(Claims::parse(json).unwrap_err().refusal(), Refusal::Claim, "{json}");
    }
    let zero = Claims::parse(r#"{"sub":"a\u0000b"}"#).unwrap();
    let filter = Policy::parse("owner = claims.sub").unwrap().bind_claims(&zero).unwrap();
    assert!(filter.bind(&schema(relation(ReplicaIdentity::Default))).is_err());
}

#[test]
fn a_single_value_beside_an_array_is_a_list_of_one_and_never_read_as_an_array() {
    same("tags && claims.sub", "tags && '{ann}'");
    same("tags @> claims.sub", "tags @> '{ann}'");
    same("claims.sub <@ tags", "tags @> '{ann}'");
    same("tags <@ claims.id", "tags <@ '{9007199254740993}'");
    let with = |claim: &str, text: &str| {
        let claims = Claims::parse(&format!(r#"{{"c":{claim}}}"#)).unwrap();
        let filter = Policy::parse(text)?.bind_claims(&claims)?;
        filter.bind(&schema(relation(ReplicaIdentity::Default)))
    };
    // Texts that are arrays of many, of none, and of a NULL, were they read as arrays.
    for claim in ["{a,b}", "{}", "{NULL}", "[0:0]={a}", "{{a}}"] {
        let claim = format!("\"{claim}\"");
        for text in ["tags && claims.c", "tags @> claims.c", "tags <@ claims.c", "NOT tags && claims.c"] {
            let predicate = with(&claim, text).unwrap_or_else(|error| panic!("{text} of {claim}: {error}"));
            let has = |row: &str| predicate.evaluate(row.as_bytes()).matches().unwrap();
            let is_not = text.starts_with("NOT");
            assert_eq!(has(&format!(r#"{{"tags":[{claim}]}}"#)), !is_not, "{text} of {claim}");
            assert_eq!(has(r#"{"tags":["a","b"]}"#), is_not, "{text} of {claim}");
        }
        let predicate = with(&claim, "owner = ANY (claims.c)").unwrap();
        assert_eq!(predicate.evaluate(br#"{"owner":"a"}"#), Verdict::False, "{claim}");
    }
    // An object is neither one value nor many.
    for claim in ["{}", r#"{"a":1}"#] {
        for text in ["tags && claims.c", "tags @> claims.c", "tags <@ claims.c", "owner = ANY (claims.c)"] {
            let refusal = with(claim, text).expect_err(text).refusal();
            assert!(matches!(refusal, Refusal::Type | Refusal::Claim), "{text} of {claim}: {refusal:?}");
        }
    }
}

#[test]
fn only_an_object_is_a_document_and_only_a_single_value_a_key() {
    same("j @> claims.org", "j @> '{\"id\": 7, \"Name\": \"x\"}'");
    same("j ? claims.sub", "j ? 'ann'");
    same("j @> claims.nobody", "NULL");
    let claims =
        Claims::parse(r#"{"text":"{}","quoted":"\"x\"","number":5,"list":[1],"object":{"a":1}}"#).unwrap();
    let with = |text: &str| {
        let filter = Policy::parse(text)?.bind_claims(&claims)?;
        filter.bind(&schema(relation(ReplicaIdentity::Default)))
    };
    for text in [
        "j @> claims.text",
        "j <@ claims.text",
        "j @> claims.quoted",
        "j @> claims.number",
        "j @> claims.list",
        "j ? claims.object",
        "j ? claims.list",
    ] {
        let error = with(text).expect_err(text);
        assert!(
            matches!(error.refusal(), Refusal::Type | Refusal::Claim) && !error.hint().is_empty(),
            "{text}: {error}"
        );
    }
}

#[test]
fn filters_join_with_policies() {
    let schema = schema(relation(ReplicaIdentity::Default));
    let parse = |text| Filter::parse(text).unwrap();
    let all = Filter::all([parse("n = 1 OR n = 2"), parse("flag")]).bind(&schema).unwrap();
    assert_eq!(all, bound("(n = 1 OR n = 2) AND flag").unwrap());
    assert_eq!(Filter::all([]).bind(&schema).unwrap().constant(), Some(Verdict::True));
}
