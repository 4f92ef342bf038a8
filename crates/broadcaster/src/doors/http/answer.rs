//! Errors of the contract as HTTP says them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use walcast_protocol::{ErrorCode, ErrorMessage};

use super::query::Form;
use crate::doors::places::later;
use crate::doors::stranger::Farewell;
use crate::metrics as names;
use crate::refusal::Refusal;

/// The answer to a request that is not served.
pub(super) type Refused = Box<Response>;

/// Where to begin who reads pages, and whose cursor leads nowhere.
pub(super) const BEGIN_NOW: &str = "ask with cursor=latest for what commits from now on, and read rows with POST /v1/rows; an initial sync comes as \
     server-sent events (Accept: text/event-stream) or by WebSocket";
/// The same for events.
const SYNC_AGAIN: &str = "ask without cursor, feed and Last-Event-ID for an initial sync";

/// What is said of a subscription that is over. What can be done about its cursor is told as this door has it.
pub(super) fn fitted(error: &ErrorMessage, form: Form) -> ErrorMessage {
    let mut error = error.clone();
    if matches!(error.code, ErrorCode::CursorTooOld | ErrorCode::CursorAhead | ErrorCode::FeedChanged) {
        error.hint = Some(if form == Form::Events { SYNC_AGAIN } else { BEGIN_NOW }.to_owned());
    }
    error
}

/// A subscription is over, which was counted already.
pub(super) fn over(error: &ErrorMessage, form: Form) -> Refused {
    self::error(&fitted(error, form))
}

/// In the words that it has.
fn error(error: &ErrorMessage) -> Refused {
    with_status(status_of(&error.code), error)
}

/// What a code is over HTTP, where nothing else is said.
fn status_of(code: &ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadMessage
        | ErrorCode::BadFilter
        | ErrorCode::IdentityRequired
        | ErrorCode::LimitExceeded => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::UnknownTable | ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::CursorAhead | ErrorCode::FeedChanged => StatusCode::CONFLICT,
        ErrorCode::CursorTooOld => StatusCode::GONE,
        ErrorCode::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal | ErrorCode::Other(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The request is refused.
pub(super) fn refusal(refusal: Refusal) -> Refused {
    let message = refusal.into_message(None, false);
    counted(&message);
    error(&message)
}

/// The subscription that it asks for is refused.
pub(super) fn refusal_of(refusal: Refusal, form: Form) -> Refused {
    let message = refusal.into_message(None, false);
    counted(&message);
    over(&message, form)
}

/// The request is refused, with a status that says more than the code.
pub(super) fn refusal_as(status: StatusCode, refusal: Refusal) -> Refused {
    let message = refusal.into_message(None, false);
    counted(&message);
    with_status(status, &message)
}

/// The request came too early, or too fast.
pub(super) fn too_many(message: &str, hint: &str) -> Refused {
    let error =
        ErrorMessage { hint: Some(hint.to_owned()), ..ErrorMessage::new(ErrorCode::LimitExceeded, message) };
    counted(&error);
    Box::new(later(*with_status(StatusCode::TOO_MANY_REQUESTS, &error)))
}

/// The client is not let in, or for too long already.
pub(super) fn farewell(farewell: Farewell) -> Refused {
    let error = farewell.into_error();
    counted(&error);
    match error.code {
        ErrorCode::LimitExceeded => Box::new(later(*with_status(StatusCode::TOO_MANY_REQUESTS, &error))),
        _ => self::error(&error),
    }
}

fn counted(error: &ErrorMessage) {
    metrics::counter!(names::ERRORS, "code" => error.code.to_string()).increment(1);
}

fn with_status(status: StatusCode, error: &ErrorMessage) -> Refused {
    let mut body = json!({"code": error.code, "message": error.message, "hint": error.hint});
    if let (Some(oldest), Some(body)) = (error.oldest, body.as_object_mut()) {
        body.insert("oldest".to_owned(), json!(oldest));
    }
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    Box::new(if status == StatusCode::SERVICE_UNAVAILABLE { later(response) } else { response })
}

#[cfg(test)]
mod tests {
    use walcast_protocol::ErrorCode;

    use super::status_of;

    #[test]
    fn the_contract_says_of_each_code_what_it_is_over_http() {
        let words = include_str!("../../../../../docs/protocol.md");
        let (_, table) = words.split_once("| status | `code` |").expect("the table is where it was");
        let rows: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
        for code in ErrorCode::KNOWN {
            let status = status_of(code).as_str().to_owned();
            let told = rows
                .iter()
                .any(|row| row.starts_with(&format!("| {status} ")) && row.contains(&format!("`{code}`")));
            assert!(told, "{code} is {status}, and docs/protocol.md does not say so");
        }
    }
}
