//! Errors over HTTP, in words that fit the door.

use serde_json::json;

use super::http::{ask, get};
use super::{House, inserts};
use crate::limits::Limits;

#[tokio::test]
async fn a_request_that_is_no_http_is_told_so_and_how_a_url_is_escaped() {
    let house = House::open(Limits::default(), 1 << 20).await;
    house.gate.open();
    for line in [
        "GET /v1/changes?tables=public.a&where=id>1",
        "GET /v1/changes?tables=public.a&where=id > 1",
        "GET /v1/changes?tables=public.a&where=\u{1}",
        "\u{16}\u{3}\u{1}",
    ] {
        let answer = ask(&house, line, "").await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("bad_message")), "{line}");
        let hint = answer.json()["hint"].as_str().unwrap().to_owned();
        assert!(hint.contains("%3E") && hint.contains("--data-urlencode"), "{hint}");
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    }
    let long = format!("GET /v1/changes?tables={}", "a".repeat(70 << 10));
    let answer = ask(&house, &long, "").await;
    assert!(answer.status == 414 || answer.status == 431, "{}", answer.head);
    assert!(answer.json()["hint"].as_str().unwrap().contains("16 KiB"), "{}", answer.body);
    // What can be read is answered by the paths.
    assert_eq!(get(&house, "tables=public.a&cursor=0/1&where=id%3E1").await.status, 200);
    house.close().await;
}

#[tokio::test]
async fn what_to_do_about_a_cursor_is_told_in_parameters_and_not_in_messages() {
    let mut house = House::open(Limits::default(), 1 << 20).await;
    house.gate.open();
    house.append(inserts(1, 3, &[])).await;
    for cursor in ["0/FF", "0/0:1", "f_2@0/10"] {
        let line = format!("GET /v1/changes?tables=public.a&cursor={cursor}");
        let page = ask(&house, &line, "").await;
        let events = ask(&house, &line, "Accept: text/event-stream\r\n").await;
        for (answer, words) in [(page, "cursor=latest"), (events, "without cursor, feed and Last-Event-ID")] {
            assert!(answer.status == 409 || answer.status == 410, "{}", answer.body);
            assert!(answer.json()["hint"].as_str().unwrap().contains(words), "{}", answer.body);
            assert!(!answer.body.contains("subscribe"), "{}", answer.body);
        }
    }
    let answer = get(&house, "tables=public.a&cursor=banana").await.json();
    assert_eq!(answer["message"], "cursor is not a cursor: \"banana\"");
    let hint = answer["hint"].as_str().unwrap();
    assert!(hint.contains("16/B374D848") && hint.contains("cursor=latest"), "{hint}");
    assert!(!hint.contains("acked") && !hint.contains("0/0"), "{hint}");
    house.close().await;
}
