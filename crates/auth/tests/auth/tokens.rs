//! Tokens and keys as they come from outside: real keys, real signatures, real files, a real HTTP server.

use std::sync::Arc;
use std::time::Duration;

use crate::authority::{self, Authority, HttpKeys, in_seconds};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use walcast_auth::{KeyError, KeyRing, KeySource, Rejection, Renewal, Rules, TOKEN_BYTES_MAX, Verifier};

const ALGORITHMS: [Algorithm; 12] = [
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

async fn verifier(source: KeySource, rules: Rules) -> Verifier {
    Verifier::new(KeyRing::load(source).await.unwrap(), rules)
}

fn claims() -> Value {
    json!({"sub": "ada", "role": "clerk", "org": {"id": 7}, "exp": in_seconds(60)})
}

#[tokio::test]
async fn a_token_of_every_algorithm_is_verified_by_its_key_and_by_no_other() {
    let authorities: Vec<Authority> = ALGORITHMS.iter().map(|algorithm| Authority::new(*algorithm)).collect();
    for authority in &authorities {
        let verifier = verifier(authority.source(), Rules::default()).await;
        let identity = verifier.verify(&authority.token(&claims())).unwrap();
        assert_eq!((identity.role(), identity.subject()), ("clerk", Some("ada")));
        assert_eq!(identity.claims()["org"]["id"], 7);
        for other in &authorities {
            let same_key = std::ptr::eq(authority, other);
            let result = verifier.verify(&other.token(&claims()));
            assert_eq!(result.is_ok(), same_key, "{:?} by {:?}", other.algorithm, authority.algorithm);
        }
    }
}

#[tokio::test]
async fn large_numbers_in_claims_keep_their_digits() {
    let authority = Authority::new(Algorithm::HS256);
    let verifier = verifier(authority.source(), Rules::default()).await;
    let number = "123456789012345678901234567890.10";
    let payload = format!(r#"{{"sub":"ada","org":{number},"exp":{}}}"#, in_seconds(60));
    let payload: Box<serde_json::value::RawValue> = serde_json::from_str(&payload).unwrap();
    let identity = verifier.verify(&authority.token_of(&payload)).unwrap();
    assert!(identity.claims_json().contains(number), "{}", identity.claims_json());
}

#[tokio::test]
async fn a_public_key_is_never_taken_for_a_secret() {
    let authority = Authority::new(Algorithm::RS256);
    let verifier = verifier(authority.source(), Rules::default()).await;
    let forged = authority::hmac_token(authority.public_pem().as_bytes(), &claims());
    assert_eq!(verifier.verify(&forged), Err(Rejection::Signature));
}

#[tokio::test]
async fn a_token_without_a_signature_or_with_a_changed_one_is_refused() {
    let authority = Authority::new(Algorithm::HS256);
    let verifier = verifier(authority.source(), Rules::default()).await;
    let token = authority.token(&claims());
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else {
        panic!("three parts")
    };
    let none = authority::base64(br#"{"alg":"none","typ":"JWT"}"#);
    for forged in [format!("{none}.{payload}."), format!("{none}.{payload}.{signature}")] {
        assert_eq!(verifier.verify(&forged), Err(Rejection::Signature));
    }
    let richer = authority::base64(json!({"role": "admin", "exp": in_seconds(60)}).to_string().as_bytes());
    assert_eq!(verifier.verify(&format!("{header}.{richer}.{signature}")), Err(Rejection::Signature));
    for malformed in ["", ".", "..", "a.b.c", &token[1..], "{}", "\u{0}", payload] {
        assert_eq!(verifier.verify(malformed), Err(Rejection::Malformed), "{malformed:?}");
    }
    let bytes = TOKEN_BYTES_MAX + 1;
    assert_eq!(verifier.verify(&"a".repeat(bytes)), Err(Rejection::TooLong { bytes, max: TOKEN_BYTES_MAX }));
}

#[tokio::test]
async fn time_audience_and_issuer_are_checked_as_the_rules_say() {
    let authority = Authority::new(Algorithm::HS256);
    let rules = Rules {
        audiences: vec!["app".to_owned(), "web".to_owned()],
        issuers: vec!["https://id".to_owned()],
        ..Rules::default()
    };
    let verifier = verifier(authority.source(), rules).await;
    let outcome = |changes: Value| {
        let mut claims = json!({"aud": "app", "iss": "https://id", "exp": in_seconds(60)});
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        verifier.verify(&authority.token(&claims)).map(|identity| identity.role().to_owned())
    };
    assert_eq!(outcome(json!({})).as_deref(), Ok("authenticated"));
    assert_eq!(outcome(json!({"aud": ["other", "web"]})).as_deref(), Ok("authenticated"));
    assert_eq!(outcome(json!({"exp": in_seconds(-20)})).as_deref(), Ok("authenticated"), "within the leeway");
    assert_eq!(outcome(json!({"nbf": in_seconds(20)})).as_deref(), Ok("authenticated"), "within the leeway");
    assert_eq!(outcome(json!({"exp": in_seconds(-40)})), Err(Rejection::Expired));
    assert_eq!(outcome(json!({"exp": "later"})), Err(Rejection::Missing("exp".to_owned())));
    assert_eq!(outcome(json!({"exp": null})), Err(Rejection::Missing("exp".to_owned())));
    assert_eq!(outcome(json!({"nbf": in_seconds(40)})), Err(Rejection::NotYetValid));
    assert_eq!(outcome(json!({"aud": "others"})), Err(Rejection::Audience));
    assert_eq!(outcome(json!({"aud": null})), Err(Rejection::Missing("aud".to_owned())));
    assert_eq!(outcome(json!({"iss": "https://evil"})), Err(Rejection::Issuer));
    assert_eq!(outcome(json!({"iss": null})), Err(Rejection::Missing("iss".to_owned())));
    assert_eq!(outcome(json!({"role": 7})), Err(Rejection::Claim("role".to_owned())));
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let error = async |source: KeySource| KeyRing::load(source).await.unwrap_err();
    assert!(matches!(
        error(KeySource::Secret(b"short".to_vec())).await,
        KeyError::ShortSecret { bytes: 5, .. }
    ));
    let secret = file("secret", "too short\n");
    assert!(matches!(error(KeySource::SecretFile(secret)).await, KeyError::ShortSecret { bytes: 9, .. }));
    assert!(matches!(error(KeySource::PemFile(folder.path().join("none"))).await, KeyError::File { .. }));
    assert!(matches!(error(KeySource::PemFile(file("pem", "no pem"))).await, KeyError::Pem { .. }));
    assert!(matches!(error(KeySource::JwksFile(file("1", "{"))).await, KeyError::Jwks { .. }));
    assert!(matches!(error(KeySource::JwksFile(file("2", r#"{"keys":[]}"#))).await, KeyError::NoKeys { .. }));
    let encryption = r#"{"keys":[{"kty":"oct","kid":"e","use":"enc","k":"AAAA"}]}"#;
    let text = error(KeySource::JwksFile(file("3", encryption))).await.to_string();
    assert!(text.contains("e: it is not for signatures"), "{text}");
    let short = r#"{"keys":[{"kty":"oct","kid":"s","k":"AAAA"}]}"#;
    let text = error(KeySource::JwksFile(file("4", short))).await.to_string();
    assert!(text.contains("s: its secret has 3 bytes"), "{text}");
    let large = " ".repeat(walcast_auth::KEYS_BYTES_MAX + 1);
    assert!(matches!(error(KeySource::JwksFile(file("5", &large))).await, KeyError::TooLarge { .. }));
    for url in ["http://id.example.org/keys", "ftp://localhost/keys", "file:///etc/keys"] {
        assert!(matches!(KeySource::url(url.parse().unwrap()), Err(KeyError::Url { .. })), "{url}");
    }
}

#[tokio::test]
async fn a_key_of_a_set_verifies_the_algorithm_that_it_names_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    for algorithm in ALGORITHMS {
        let authority = Authority::named(algorithm, "k");
        std::fs::write(&path, authority::jwks(&[&authority])).unwrap();
        let verifier = verifier(KeySource::JwksFile(path.clone()), Rules::default()).await;
        assert!(verifier.verify(&authority.token(&claims())).is_ok(), "{algorithm:?}");
        for other in
            ALGORITHMS.iter().filter(|other| **other != algorithm && other.family() == algorithm.family())
        {
            if let Some(token) = authority.token_by(*other, &claims()) {
                assert_eq!(verifier.verify(&token), Err(Rejection::Signature), "{other:?} for {algorithm:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_key_set_is_searched_by_key_id_and_by_algorithm() {
    let (old, new) = (Authority::named(Algorithm::ES256, "old"), Authority::named(Algorithm::ES256, "new"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, authority::jwks(&[&old, &new])).unwrap();
    let verifier = verifier(KeySource::JwksFile(path), Rules::default()).await;
    for authority in [&old, &new] {
        assert!(verifier.verify(&authority.token(&claims())).is_ok());
        assert!(
            verifier.verify(&authority.token_named(None, &claims())).is_ok(),
            "without an id, all are tried"
        );
    }
    assert_eq!(verifier.verify(&old.token_named(Some("new"), &claims())), Err(Rejection::Signature));
    assert_eq!(verifier.verify(&old.token_named(Some("other"), &claims())), Err(Rejection::Signature));
}

#[tokio::test]
async fn keys_of_a_url_are_renewed_when_a_token_names_an_unknown_one_and_survive_its_absence() {
    let (old, new) = (Authority::named(Algorithm::ES256, "old"), Authority::named(Algorithm::EdDSA, "new"));
    let server = HttpKeys::start(authority::jwks(&[&old])).await;
    let ring = KeyRing::load(KeySource::url(server.url()).unwrap()).await.unwrap();
    let cancel = CancellationToken::new();
    let renewing = tokio::spawn({
        let (ring, cancel) = (Arc::clone(&ring), cancel.clone());
        let renewal =
            Renewal { interval: Duration::from_secs(3600), unknown_key_interval: Duration::from_secs(1) };
        async move { ring.renew(renewal, cancel).await }
    });
    let verifier = Verifier::new(Arc::clone(&ring), Rules::default());
    assert!(verifier.verify(&old.token(&claims())).is_ok());

    // Away: the keys before stay in use.
    server.answer(Err("500 Internal Server Error")).await;
    ring.reload();
    server.asked(2).await;
    assert!(verifier.verify(&old.token(&claims())).is_ok());

    // Rotated: a token of the new key makes them be loaded again.
    server.answer(Ok(authority::jwks(&[&new]))).await;
    assert_eq!(verifier.verify(&new.token(&claims())), Err(Rejection::Signature));
    tokio::time::timeout(Duration::from_secs(30), async {
        while verifier.verify(&new.token(&claims())).is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the new key is found");
    // Before the next token of a key that is not known.
    let asked = server.count();
    assert_eq!(asked, 3, "many tokens of an unknown key made one request");
    assert_eq!(verifier.verify(&old.token(&claims())), Err(Rejection::Signature), "the old key is gone");
    cancel.cancel();
    renewing.await.unwrap();
}

#[tokio::test]
async fn what_a_url_answers_is_bounded_and_redirects_are_not_followed() {
    let server = HttpKeys::start(" ".repeat(walcast_auth::KEYS_BYTES_MAX + 1)).await;
    let load = async || KeySource::url(server.url()).unwrap().load().await.unwrap_err();
    assert!(matches!(load().await, KeyError::TooLarge { .. }));
    server.answer(Err("302 Found")).await;
    // The port is in it, too.
    let text = load().await.to_string().replace(server.url().as_str(), "the URL");
    assert!(text.contains("302"), "{text}");
}
