//! The committed documents are what the types say, every golden message keeps to them, and every message that the
//! contract in words shows is a golden one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Map, Value, json};

use crate::schema;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)
}

fn golden(direction: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(direction);
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        (path.file_stem().unwrap().to_string_lossy().into_owned(), serde_json::from_str(&text).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

#[test]
fn the_committed_contract_is_what_the_types_say() {
    for (name, document) in [
        ("protocol.schema.json", schema::json_schema_document()),
        ("asyncapi.json", schema::asyncapi_document()),
    ] {
        let (path, expected) = (docs(name), schema::text(&document));
        if std::env::var_os("WALCAST_WRITE_CONTRACT").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == expected,
            "docs/{name} is not what the types say: run make contract, and commit it"
        );
    }
}

/// Makes every object whose fields are listed one that has no others.
fn close(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("properties").is_some_and(Value::is_object) {
                fields.insert("additionalProperties".into(), json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(elements) => elements.iter_mut().for_each(close),
        _ => {}
    }
}

struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    fn new(document: &Value, of: &str) -> Self {
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource("walcast.json", document.clone()).unwrap();
        let index = compiler.compile(&format!("walcast.json#/$defs/{of}"), &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn check(&self, message: &Value) -> Result<(), String> {
        self.schemas.validate(message, self.index).map_err(|error| format!("{error:#}"))
    }
}

#[test]
fn every_golden_message_is_valid_and_one_with_a_field_less_or_of_another_kind_is_not() {
    let open = schema::json_schema_document();
    let mut closed = open.clone();
    close(&mut closed);
    for (direction, of) in [("client", "ClientMessage"), ("server", "ServerMessage")] {
        let (open, closed) = (Validator::new(&open, of), Validator::new(&closed, of));
        for (name, message) in golden(direction) {
            closed.check(&message).unwrap_or_else(|error| panic!("{direction}/{name}: {error}"));
            let with = |change: &dyn Fn(&mut Map<String, Value>)| {
                let mut message = message.clone();
                change(message.as_object_mut().unwrap());
                open.check(&message)
            };
            with(&|fields| drop(fields.insert("added_later".into(), json!({"type": [1]})))).expect(&name);
            let any = ["payload", "state"];
            for field in message.as_object().unwrap().keys().filter(|field| !any.contains(&field.as_str())) {
                let wrong = with(&|fields| drop(fields.insert(field.clone(), json!(-1.5))));
                assert!(wrong.is_err(), "{direction}/{name}: {field} can be anything");
            }
            assert!(with(&|fields| drop(fields.remove("type"))).is_err(), "{name}");
            let id = message.get("id").is_some() && message["type"] != "error";
            assert!(!id || with(&|fields| drop(fields.remove("id"))).is_err(), "{name}");
        }
    }
    // A direction does not take the messages of the other.
    let server = Validator::new(&open, "ServerMessage");
    for (name, message) in golden("client") {
        assert!(server.check(&message).is_err(), "{name}");
    }
}

#[test]
fn every_reference_of_the_asyncapi_document_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    found.insert(reference.clone());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(elements) => elements.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = schema::asyncapi_document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').expect("all within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let messages = crate::ClientMessage::TYPES.len() + crate::ServerMessage::TYPES.len();
    assert_eq!(document["components"]["messages"].as_object().unwrap().len(), messages);
    assert!(found.len() > messages);
}

#[test]
fn every_message_that_the_contract_in_words_shows_is_a_golden_one() {
    let read = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap().trim_end().to_owned())
    };
    let golden: BTreeSet<String> = read("client").chain(read("server")).collect();
    let words = std::fs::read_to_string(docs("protocol.md")).unwrap();
    let shown: Vec<&str> = words.lines().filter(|line| line.starts_with("{\"type\":\"")).collect();
    assert!(shown.len() > 20, "the messages are not where they were");
    for message in shown {
        assert!(golden.contains(message), "no file of crates/protocol/golden is {message}");
    }
}

/// What stands between backquotes in the first cell of each row of the table of docs/protocol.md that has these columns.
fn first_cells(columns: &str) -> Vec<String> {
    let words = std::fs::read_to_string(docs("protocol.md")).unwrap();
    let (_, table) = words.split_once(columns).expect("the table is not where it was");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`').to_owned()).collect()
}

#[test]
fn the_contract_in_words_has_every_code_and_no_other() {
    let told = first_cells("| code | when | what helps |");
    let known: BTreeSet<&str> = crate::ErrorCode::KNOWN.iter().map(crate::ErrorCode::as_str).collect();
    assert_eq!(told.iter().map(String::as_str).collect::<BTreeSet<_>>(), known);
    assert_eq!(told.len(), known.len(), "a code stands there twice");
}
