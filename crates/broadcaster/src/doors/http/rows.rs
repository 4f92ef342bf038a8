//! `POST /v1/rows`.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::value::RawValue;
use tokio::time::timeout;
use walcast_protocol::ErrorCode;

use super::answer::{self, Refused};
use super::body;
use super::visit::{Visit, reached};
use crate::doors::Door;
use crate::doors::entrance::changed;
use crate::doors::pace::SharedPace;
use crate::doors::patience::Patience;
use crate::doors::peer::Arrival;
use crate::limits::Limits;
use crate::lookup::{Looked, Lookup};
use crate::refusal::Refusal;

/// Rows by key, in the order of the keys.
pub(in crate::doors) async fn rows(
    State(door): State<Door>,
    Extension(arrival): Extension<Arrival>,
    Extension(pace): Extension<SharedPace>,
    Extension(patience): Extension<Patience>,
    headers: HeaderMap,
    uri: Uri,
    body: Body,
) -> Response {
    serve(&door, &arrival, (&pace, patience), &headers, &uri, body).await.unwrap_or_else(|refused| *refused)
}

async fn serve(
    door: &Door,
    arrival: &Arrival,
    pace: (&SharedPace, Patience),
    headers: &HeaderMap,
    uri: &Uri,
    request: Body,
) -> Result<Response, Refused> {
    let mut visit = Visit::admit(door, arrival, pace, headers, uri.query()).await?;
    let (broadcaster, authority) = (&door.broadcaster, &door.entrance.authority);
    let lookup = read(request, broadcaster.limits()).await?;
    let rights = visit.pass.rights().clone();
    let looking = broadcaster.look_up(lookup, &rights, visit.applicant.clone());
    let ends_at = visit.ends_at();
    let looked = tokio::select! {
        // Dropped, nothing of it goes on.
        looked = looking => looked.map_err(answer::refusal)?,
        () = rights_changed(door, &mut visit) => return Err(answer::refusal(again("the policies have changed"))),
        () = reached(ends_at) => return Err(match visit.expired() {
            Some(farewell) => answer::farewell(farewell),
            // By its clock it is good for a while longer.
            None => answer::refusal(again("the token is about to expire")),
        }),
        () = door.shutdown.cancelled() => return Err(answer::refusal(again("the daemon is going down"))),
    };
    if authority.review(&mut visit.pass) {
        return Err(answer::refusal(again("the policies have changed")));
    }
    let Looked { rows, cursor, reached, place } = looked;
    let feed = broadcaster.feed_id();
    let mut text = Vec::with_capacity(rows.len() + 128);
    let head = format!("{{\"feed\":\"{feed}\",\"cursor\":\"{cursor}\",\"reached\":\"{reached}\",\"rows\":[");
    text.extend_from_slice(head.as_bytes());
    text.extend_from_slice(&rows);
    text.extend_from_slice(b"]}");
    drop(rows);
    let answered = body::json(text, headers, visit).await;
    drop(place);
    answered
}

/// Waits until the client has other rights than it came with.
async fn rights_changed(door: &Door, visit: &mut Visit) {
    loop {
        changed(visit.policies.as_mut()).await;
        if door.entrance.authority.review(&mut visit.pass) {
            return;
        }
    }
}

fn again(message: &str) -> Refusal {
    Refusal::new(ErrorCode::NotReady, message).hint("ask again")
}

async fn read(body: Body, limits: &Limits) -> Result<Lookup, Refused> {
    let bytes = match timeout(limits.handshake_max, to_bytes(body, limits.message_bytes_max)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(_)) => {
            let message = format!(
                "the request has more than {} bytes (message_bytes_max), or was cut off",
                limits.message_bytes_max
            );
            let refusal =
                Refusal::new(ErrorCode::LimitExceeded, message).hint("ask for fewer keys at a time");
            return Err(answer::refusal_as(StatusCode::PAYLOAD_TOO_LARGE, refusal));
        }
        Err(_) => {
            let refusal = Refusal::bad("the request did not come in time (handshake_max)");
            return Err(answer::refusal_as(StatusCode::REQUEST_TIMEOUT, refusal));
        }
    };
    lookup(&bytes).map_err(answer::refusal)
}

fn lookup(body: &[u8]) -> Result<Lookup, Refusal> {
    let hint = r#"write {"table": "schema.table", "keys": [{"id": 1}, …]}"#;
    let bad = |what: String| Refusal::bad(what).hint(hint);
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the request is not a JSON object: {error}")))?;
    let mut field = |name: &str| fields.remove(name);
    let wrong =
        |name: &str, error: &serde_json::Error| bad(format!("{name} is not as it should be: {error}"));
    let table = field("table").ok_or_else(|| bad("table is missing".to_owned()))?;
    let table: String = serde_json::from_str(table.get()).map_err(|error| wrong("table", &error))?;
    let table =
        table.parse().map_err(|_| bad("table is the name of one table, with its schema".to_owned()))?;
    let keys = field("keys").ok_or_else(|| bad("keys is missing".to_owned()))?;
    let keys = serde_json::from_str(keys.get()).map_err(|error| wrong("keys", &error))?;
    let columns = field("columns").map(|columns| serde_json::from_str(columns.get())).transpose();
    let columns = columns.map_err(|error| wrong("columns", &error))?;
    match fields.into_keys().next() {
        None => Ok(Lookup { table, columns, keys }),
        Some(other) => {
            let other: String = other.chars().take(60).collect();
            Err(bad(format!("there is no field {other:?}; known are table, keys and columns")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn a_request_is_read_with_all_digits_of_its_keys_or_refused() {
        let read =
            lookup(br#"{"table":"public.t","keys":[{"id":12345678901234567890.50},{"id":"x"}]}"#).unwrap();
        assert_eq!(read.keys[0]["id"].get(), "12345678901234567890.50");
        assert_eq!((read.table.to_string().as_str(), read.columns), ("public.t", None));
        for body in [
            "",
            "[]",
            r#"{"keys":[]}"#,
            r#"{"table":"public.t"}"#,
            r#"{"table":"t","keys":[]}"#,
            r#"{"table":"public.*","keys":[],"columns":1}"#,
            r#"{"table":"public.t","keys":[1]}"#,
            r#"{"table":"public.t","keys":[],"where":"x"}"#,
        ] {
            assert!(lookup(body.as_bytes()).is_err(), "{body}");
        }
    }
}
