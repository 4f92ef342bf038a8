//! `GET /v1/changes`.

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;

use super::answer::{self, Refused};
use super::query::{Form, Query};
use super::visit::Visit;
use super::{events, page};
use crate::doors::Door;
use crate::doors::pace::SharedPace;
use crate::doors::patience::Patience;
use crate::doors::peer::Arrival;
use crate::subscription::Client;

/// A page of transactions, or all that come as server-sent events.
pub(in crate::doors) async fn changes(
    State(door): State<Door>,
    Extension(arrival): Extension<Arrival>,
    Extension(pace): Extension<SharedPace>,
    Extension(patience): Extension<Patience>,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    serve(&door, &arrival, (&pace, patience), &headers, &uri).await.unwrap_or_else(|refused| *refused)
}

async fn serve(
    door: &Door,
    arrival: &Arrival,
    pace: (&SharedPace, Patience),
    headers: &HeaderMap,
    uri: &Uri,
) -> Result<Response, Refused> {
    let visit = Visit::admit(door, arrival, pace, headers, uri.query()).await?;
    let limits = door.broadcaster.limits();
    let Query { request, form } =
        Query::read(uri.query().unwrap_or_default(), headers, limits).map_err(answer::refusal)?;
    // Nobody acknowledges here.
    let client = Client { applicant: visit.applicant.clone(), user: None };
    let subscription = door.broadcaster.subscribe(request, visit.pass.rights(), &client);
    let subscription = subscription.map_err(|refusal| answer::refusal_of(refusal, form))?;
    match form {
        Form::Page { transactions_max, wait } => {
            page::serve(door, visit, subscription, (transactions_max, wait), headers).await
        }
        Form::Events => events::serve(door, visit, subscription, headers).await,
    }
}
