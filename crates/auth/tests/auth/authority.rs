//! Those who issue tokens: fresh keys of every kind, and a server that publishes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::KeyPair as _;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, Header};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use url::Url;
use walcast_auth::KeySource;

/// Seconds since 1970, `seconds` from now.
pub(crate) fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).for_each(|at| text.push(DIGITS[(word >> (18 - 6 * at)) as usize & 63] as char));
    }
    text
}

/// One that issues tokens with one key.
pub(crate) struct Authority {
    pub(crate) algorithm: Algorithm,
    id: Option<String>,
    key: EncodingKey,
    public: Public,
    folder: tempfile::TempDir,
}

enum Public {
    Secret(Vec<u8>),
    Pem(String),
}

impl Authority {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let (key, public) = match algorithm.family() {
            AlgorithmFamily::Hmac => {
                let secret: [u8; 64] = std::array::from_fn(|_| rand::random());
                (EncodingKey::from_secret(&secret), Public::Secret(secret.to_vec()))
            }
            AlgorithmFamily::Rsa => {
                let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
                let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
                let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
                let pem = |tag, der: &[u8]| pem::encode(&pem::Pem::new(tag, der));
                let key = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap();
                (key, Public::Pem(pem("PUBLIC KEY", public.as_ref())))
            }
            AlgorithmFamily::Ec => {
                let kind = match algorithm {
                    Algorithm::ES384 => &rcgen::PKCS_ECDSA_P384_SHA384,
                    _ => &rcgen::PKCS_ECDSA_P256_SHA256,
                };
                let pair = rcgen::KeyPair::generate_for(kind).unwrap();
                let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
                (key, Public::Pem(pair.public_key_pem()))
            }
            AlgorithmFamily::Ed => {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
                let key = EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).unwrap();
                (key, Public::Pem(pair.public_key_pem()))
            }
        };
        Self { algorithm, id: None, key, public, folder: tempfile::tempdir().unwrap() }
    }

    /// With a key id, which its tokens carry.
    pub(crate) fn named(algorithm: Algorithm, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..Self::new(algorithm) }
    }

    /// Where walcast finds the key.
    pub(crate) fn source(&self) -> KeySource {
        match &self.public {
            Public::Secret(secret) => KeySource::Secret(secret.clone()),
            Public::Pem(pem) => {
                let path = self.folder.path().join("public.pem");
                std::fs::write(&path, pem).unwrap();
                KeySource::PemFile(path)
            }
        }
    }

    pub(crate) fn public_pem(&self) -> &str {
        match &self.public {
            Public::Pem(pem) => pem,
            Public::Secret(_) => panic!("a secret is not public"),
        }
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_named(self.id.as_deref(), claims)
    }

    pub(crate) fn token_named(&self, id: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = id.map(str::to_owned);
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }

    /// A token with this payload, byte for byte.
    pub(crate) fn token_of(&self, payload: &serde_json::value::RawValue) -> String {
        jsonwebtoken::encode(&Header::new(self.algorithm), &payload, &self.key).unwrap()
    }

    /// A token of the same key by another algorithm, where the key is able to.
    pub(crate) fn token_by(&self, algorithm: Algorithm, claims: &Value) -> Option<String> {
        let mut header = Header::new(algorithm);
        header.kid.clone_from(&self.id);
        jsonwebtoken::encode(&header, claims, &self.key).ok()
    }

    fn jwk(&self) -> Jwk {
        let key = match (&self.public, self.algorithm.family()) {
            (Public::Secret(secret), _) => DecodingKey::from_secret(secret),
            (Public::Pem(pem), AlgorithmFamily::Ec) => DecodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
            (Public::Pem(pem), AlgorithmFamily::Ed) => DecodingKey::from_ed_pem(pem.as_bytes()).unwrap(),
            (Public::Pem(pem), _) => DecodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        };
        let mut jwk = Jwk::from_decoding_key(&key, Some(self.algorithm)).unwrap();
        jwk.common.key_id.clone_from(&self.id);
        jwk
    }
}

/// A token that is signed with HS256 and any bytes.
pub(crate) fn hmac_token(secret: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret)).unwrap()
}

pub(crate) fn jwks(authorities: &[&Authority]) -> String {
    let keys = authorities.iter().map(|authority| authority.jwk()).collect();
    serde_json::to_string(&JwkSet { keys }).unwrap()
}

/// A server on this machine that answers every request alike.
pub(crate) struct HttpKeys {
    port: u16,
    answer: Arc<Mutex<Result<String, &'static str>>>,
    asked: Arc<AtomicUsize>,
}

impl HttpKeys {
    pub(crate) async fn start(body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answer, asked) = (Arc::new(Mutex::new(Ok(body))), Arc::new(AtomicUsize::new(0)));
        let server = Self { port, answer: Arc::clone(&answer), asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && socket.read_buf(&mut head).await.unwrap_or(0) > 0 {}
                let text = match &*answer.lock().await {
                    Ok(body) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
                    Err(status) => {
                        format!(
                            "HTTP/1.1 {status}\r\nLocation: http://localhost/\r\nContent-Length: 0\r\n\r\n"
                        )
                    }
                };
                // A client that has enough goes away.
                _ = socket.write_all(text.as_bytes()).await;
                _ = socket.shutdown().await;
                asked.fetch_add(1, Ordering::SeqCst);
            }
        });
        server
    }

    pub(crate) fn url(&self) -> Url {
        format!("http://127.0.0.1:{}/jwks.json", self.port).parse().unwrap()
    }

    pub(crate) async fn answer(&self, answer: Result<String, &'static str>) {
        *self.answer.lock().await = answer;
    }

    pub(crate) fn count(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) async fn asked(&self, count: usize) {
        tokio::time::timeout(Duration::from_secs(30), async {
            while self.count() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the keys are asked for");
    }
}
