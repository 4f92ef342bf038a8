//! What clients are told about what they have sent.

use walcast_protocol::{ErrorMessage, ServerMessage};

use super::{Client, House};
use crate::limits::Limits;

async fn refused(client: &mut Client, text: &str) -> ErrorMessage {
    client.send(text).await;
    match client.next().await {
        ServerMessage::Error(error) => error,
        other => panic!("{text}: {other:?}"),
    }
}

#[tokio::test]
async fn a_malformed_subscribe_is_answered_with_its_id_the_field_and_what_it_should_be() {
    let house = House::open(Limits::default(), 1 << 20).await;
    house.gate.open();
    let mut client = house.client().await;
    let error =
        refused(&mut client, r#"{"type":"subscribe","tables":[{"table":"orders"}],"id":"mine"}"#).await;
    assert_eq!((error.id, error.fatal), (Some("mine".parse().unwrap()), false));
    for word in ["\"tables[0].table\"", "write schema.table"] {
        assert!(error.message.contains(word), "{}", error.message);
    }
    assert!(!error.message.contains(" column "), "{}", error.message);
    assert!(error.hint.unwrap().contains(r#"{"type":"subscribe","id":"orders""#));
    client.subscribe("mine", r#""tables":[{"table":"*"}],"cursor":"latest""#).await;
    assert_eq!(client.take(2).await, ["subscribed Live 0/1", "caught_up 0/1"]);
    // The one that is there goes on, so the error is not about it.
    let error = refused(&mut client, r#"{"type":"subscribe","id":"mine","tables":7}"#).await;
    assert_eq!(error.id, None);
    assert!(error.message.contains("with the id \"mine\": the field \"tables\""), "{}", error.message);
    house.close().await;
}

#[tokio::test]
async fn other_malformed_messages_end_no_subscription_and_name_the_id_in_words() {
    let house = House::open(Limits::default(), 1 << 20).await;
    let mut client = house.client().await;
    let id = "the id \"mine\"";
    for (text, words) in [
        (
            r#"{"type":"ack","id":"mine","cursor":"yesterday"}"#,
            [id, "\"cursor\"", "is not a WAL position such as"],
        ),
        (r#"{"type":"ack","id":"mine"}"#, [id, "\"cursor\"", "is missing"]),
        (r#"{"type":"unsubscribe","id":5}"#, ["unsubscribe", "\"id\"", "expected a string"]),
        (r#"{"type":"auth","token":5}"#, ["auth", "\"token\"", "expected a string"]),
    ] {
        let error = refused(&mut client, text).await;
        assert_eq!(error.id, None, "{text}");
        assert!(words.iter().all(|word| error.message.contains(word)), "{}", error.message);
        assert!(error.hint.is_some_and(|hint| hint.starts_with("a message looks like {")), "{text}");
    }
    house.close().await;
}
