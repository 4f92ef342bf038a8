//! Web pages of other sites: which may ask, and that their browser lets them read the answer (the Fetch standard, CORS).
//!
//! No cookie means anything here, so credentials are never allowed for, and the answer names the page's own origin even
//! where all may ask.

use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::doors::Door;
use crate::doors::origin;
use crate::doors::peer::Arrival;
use crate::metrics as names;

/// Seconds for which a browser remembers that a page may ask.
const REMEMBERED: HeaderValue = HeaderValue::from_static("600");

/// Lets nothing of a page through that may not ask, and answers a browser that asks whether it may.
pub(super) async fn check(
    State(door): State<Door>,
    Extension(arrival): Extension<Arrival>,
    request: Request,
    next: Next,
) -> Response {
    let (entrance, headers) = (&door.entrance, request.headers());
    let anybody = entrance.authority.is_open();
    let origins = &entrance.origins;
    let may_ask = origins.allow(headers, &arrival, &entrance.proxies, anybody)
        && origins.allow_host(headers, &arrival, &entrance.proxies, anybody);
    if !may_ask {
        return origin::refused();
    }
    let origin = headers.get(header::ORIGIN).cloned();
    let path = request.uri().path().to_owned();
    let is_preflight = *request.method() == Method::OPTIONS
        && origin.is_some()
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight { preflight() } else { next.run(request).await };
    let status = response.status().as_u16().to_string();
    metrics::counter!(names::REQUESTS, "path" => path, "status" => status).increment(1);
    let headers = response.headers_mut();
    readable_by(headers, origin);
    response
}

fn preflight() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, POST");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let taken = HeaderValue::from_static("authorization, content-type, last-event-id, cache-control");
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, taken);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
    response
}

/// What a browser may do with an answer: pages that asked by `fetch` read it, nothing embeds or keeps it.
fn readable_by(headers: &mut HeaderMap, origin: Option<HeaderValue>) {
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let told = HeaderValue::from_static("retry-after, www-authenticate");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, told);
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}
