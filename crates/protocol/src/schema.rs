//! The contract as documents for programs: JSON Schema and AsyncAPI, made from the types. Only for tests, which hold the
//! committed documents to it (`contract_tests`).

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::{ClientMessage, ErrorCode, PROTOCOL_VERSION, STREAM_PATH, SUBPROTOCOL, ServerMessage};

/// Stands for a type of another crate, or for one whose form on the wire is not what its fields say.
macro_rules! forms {
    ($($name:ident = $schema:tt;)+) => {
        $(
            pub(crate) struct $name;

            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> {
                    stringify!($name).into()
                }

                fn inline_schema() -> bool {
                    true
                }

                fn json_schema(_: &mut SchemaGenerator) -> Schema {
                    json_schema!($schema)
                }
            }
        )+
    };
}

const CURSOR: &str = "^[0-9A-F]{1,8}/[0-9A-F]{1,8}(:-?[0-9]+)?$";

forms! {
    SubscriptionIdText = { "type": "string", "minLength": 1, "maxLength": 128 };
    CursorText = { "type": "string", "pattern": CURSOR };
    LsnText = { "type": "string", "pattern": "^[0-9A-F]{1,8}/[0-9A-F]{1,8}$" };
    StartAtText = { "anyOf": [{ "type": "string", "pattern": CURSOR }, { "enum": ["latest", "acked"] }] };
    FeedIdText = { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" };
    TimestampText = { "type": "string", "pattern": "^[^ ]+T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z$" };
    TableText = { "type": "string", "minLength": 3 };
    TablePatternText = { "type": "string", "minLength": 1 };
    XidNumber = { "type": "integer", "minimum": 0 };
    OpText = { "enum": ["insert", "update", "delete", "truncate"] };
    IdentityText = { "enum": ["default", "index", "full", "nothing"] };
    // Open: a client treats what it does not know as information.
    SourceStatusText = { "anyOf": [{ "enum": ["starting", "streaming", "interrupted"] }, { "type": "string" }] };
    ErrorCodeText = { "anyOf": [{ "enum": ErrorCode::KNOWN.iter().map(ErrorCode::as_str).collect::<Vec<_>>() }, { "type": "string" }] };
    Object = { "type": "object" };
    AnyJson = true;
}

/// The messages of one direction: for each, the name of its definition, its `type`, what it is, and its schema.
struct Direction {
    prefix: &'static str,
    messages: Vec<(String, &'static str, String, Value)>,
    definitions: Map<String, Value>,
}

impl Direction {
    /// As the daemon reads them: what has a default may be absent.
    fn from_client() -> Self {
        let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
        let bodies = ClientMessage::bodies(&mut generator);
        Self::new("client", bodies, generator)
    }

    /// As the daemon writes them: what is always written is there.
    fn to_client() -> Self {
        let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
        let bodies = ServerMessage::bodies(&mut generator);
        Self::new("server", bodies, generator)
    }

    fn new(
        prefix: &'static str,
        bodies: Vec<(&'static str, &'static str, Schema)>,
        mut generator: SchemaGenerator,
    ) -> Self {
        let message = |(name, doc, body): (&'static str, &str, Schema)| {
            (format!("{prefix}_{name}"), name, doc.trim().to_owned(), with_type(body, name))
        };
        let messages = bodies.into_iter().map(message).collect();
        Self { prefix, messages, definitions: generator.take_definitions(true) }
    }

    fn references(&self, at: &str) -> Vec<Value> {
        self.messages.iter().map(|(name, ..)| json!({ "$ref": format!("{at}{name}") })).collect()
    }
}

/// The body with its `type`, first among the fields that it must have.
fn with_type(body: Schema, name: &str) -> Value {
    let mut body = body.to_value();
    let fields = body.as_object_mut().expect("a message is an object");
    fields.remove("title");
    let properties = fields.entry("properties").or_insert_with(|| json!({}));
    properties["type"] = json!({ "const": name });
    let required = fields.entry("required").or_insert_with(|| json!([]));
    required.as_array_mut().expect("a list").insert(0, json!("type"));
    body
}

/// All definitions of both directions.
fn definitions() -> (Direction, Direction, Map<String, Value>) {
    let (client, server) = (Direction::from_client(), Direction::to_client());
    let mut all = Map::new();
    for direction in [&client, &server] {
        let own = direction.messages.iter().map(|(name, .., schema)| (name.clone(), schema.clone()));
        for (name, schema) in direction.definitions.clone().into_iter().chain(own) {
            let former = all.insert(name.clone(), schema.clone());
            assert!(former.is_none_or(|former| former == schema), "{name} means two things");
        }
    }
    (client, server, all)
}

/// `docs/protocol.schema.json`.
pub(crate) fn json_schema_document() -> Value {
    let (client, server, mut all) = definitions();
    for (direction, name, what) in [
        (&client, "ClientMessage", "A frame from a client."),
        (&server, "ServerMessage", "A frame from the daemon."),
    ] {
        let references = direction.references("#/$defs/");
        all.insert(name.to_owned(), json!({ "description": what, "oneOf": references }));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SUBPROTOCOL,
        "description": "Every message of the WebSocket protocol of walcast. The contract in words is docs/protocol.md. \
            Unknown fields are to be ignored. Numbers have all their digits. Made from crates/protocol by `make contract`.",
        "anyOf": [{ "$ref": "#/$defs/ClientMessage" }, { "$ref": "#/$defs/ServerMessage" }],
        "$defs": all,
    })
}

/// `docs/asyncapi.json`.
pub(crate) fn asyncapi_document() -> Value {
    let (client, server, all) = definitions();
    let (mut messages, mut in_channel) = (Map::new(), Map::new());
    let mut schemas = Value::Object(all);
    rebase(&mut schemas);
    for direction in [&client, &server] {
        for (name, type_name, doc, _) in &direction.messages {
            let reference = |at: &str| json!({ "$ref": format!("#/components/{at}/{name}") });
            let message = json!({
                "name": type_name,
                "title": format!("{type_name} (from the {})", direction.prefix),
                "summary": doc,
                "contentType": "application/json",
                "payload": reference("schemas"),
            });
            messages.insert(name.clone(), message);
            in_channel.insert(name.clone(), reference("messages"));
        }
    }
    let at = "#/channels/stream/messages/";
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "walcast",
            "version": format!("{PROTOCOL_VERSION}.0.0"),
            "description": "An ordered change feed from Postgres. The contract in words is docs/protocol.md, every \
                message as it stands on the wire is in crates/protocol/golden. Made from crates/protocol by `make contract`.",
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": {
            "daemon": {
                "host": "127.0.0.1:4700",
                "protocol": "ws",
                "description": "Where `walcast serve` listens unless it is told otherwise.",
            },
        },
        "channels": {
            "stream": {
                "address": STREAM_PATH,
                "description": format!("One WebSocket, subprotocol {SUBPROTOCOL}; each text frame is one message."),
                "messages": in_channel,
                "bindings": { "ws": { "method": "GET", "bindingVersion": "0.1.0" } },
            },
        },
        "operations": {
            "fromClient": {
                "action": "receive",
                "channel": { "$ref": "#/channels/stream" },
                "summary": "What the daemon takes from a client.",
                "messages": client.references(at),
            },
            "toClient": {
                "action": "send",
                "channel": { "$ref": "#/channels/stream" },
                "summary": "What the daemon sends to a client; the first message is welcome, or auth_required and then welcome.",
                "messages": server.references(at),
            },
        },
        "components": { "messages": messages, "schemas": schemas },
    })
}

/// References to definitions become those to components.
fn rebase(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "$ref" => {
                        *text = text.replace("#/$defs/", "#/components/schemas/");
                    }
                    other => rebase(other),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(rebase),
        _ => {}
    }
}

/// The text of a document, the same however `serde_json` was built: keys in their order.
pub(crate) fn text(document: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let mut names: Vec<&String> = fields.keys().collect();
                names.sort();
                let field = |name: &String| (name.clone(), sorted(&fields[name.as_str()]));
                Value::Object(names.into_iter().map(field).collect())
            }
            Value::Array(elements) => Value::Array(elements.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    let text = serde_json::to_string_pretty(&sorted(document)).expect("a document is JSON");
    format!("{text}\n")
}
