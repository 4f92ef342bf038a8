//! Errors over HTTP, in words that fit the door.

use serde_json::json;

use super::House;
use super::http::{ask, get};
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
