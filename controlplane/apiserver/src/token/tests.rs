//! Tokens made and checked.

use rcgen::KeyPair;

use super::*;
use crate::objects::fake::FakeObjects;

fn tokens(objects: Arc<FakeObjects>) -> Tokens {
    let key = KeyPair::generate().unwrap();
    Tokens::new(&key.serialize_pem(), &key.public_key_pem(), objects).unwrap()
}

fn claims(lasting: i64) -> Claims {
    let now = jiff::Timestamp::now().as_second();
    Claims {
        aud: vec![ISSUER.to_owned()],
        exp: now + lasting,
        iat: now,
        iss: ISSUER.to_owned(),
        jti: "id".to_owned(),
        bound: Bound {
            namespace: "ns".to_owned(),
            pod: Some(Reference { name: "p".to_owned(), uid: "pu".to_owned() }),
            serviceaccount: Reference { name: "sa".to_owned(), uid: "su".to_owned() },
            ..Bound::default()
        },
        nbf: now,
        sub: "system:serviceaccount:ns:sa".to_owned(),
    }
}

fn objects() -> Arc<FakeObjects> {
    let objects = FakeObjects::default();
    objects.put("/serviceaccounts", &json!({"metadata": {"namespace": "ns", "name": "sa", "uid": "su"}}));
    objects.put("/pods", &json!({"metadata": {"namespace": "ns", "name": "p", "uid": "pu"}}));
    Arc::new(objects)
}

#[test]
fn good_token_names_its_user() {
    let tokens = tokens(objects());
    let token = tokens.sign(&claims(600)).unwrap();
    let (user, audiences) = tokens.authenticate(&token, &[]).unwrap();
    assert_eq!(user.name, "system:serviceaccount:ns:sa");
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(audiences, [ISSUER]);
}

#[test]
fn bad_tokens_are_refused() {
    let tokens = tokens(objects());
    let other = super::tests::tokens(objects());
    let pod = |uid: &str| Some(Reference { name: "p".to_owned(), uid: uid.to_owned() });
    let rows = [
        ("expired", tokens.sign(&claims(-100)).unwrap(), "invalid bearer token"),
        ("other key", other.sign(&claims(600)).unwrap(), "invalid bearer token"),
        ("garbage", "a.b.c".to_owned(), "invalid bearer token"),
        (
            "other audience",
            tokens.sign(&Claims { aud: vec!["vault".to_owned()], ..claims(600) }).unwrap(),
            "invalid for the target audiences",
        ),
        (
            "other pod",
            tokens
                .sign(&Claims { bound: Bound { pod: pod("older"), ..claims(600).bound }, ..claims(600) })
                .unwrap(),
            "pod UID (pu) does not match claim (older)",
        ),
        (
            "other subject",
            tokens.sign(&Claims { sub: "system:serviceaccount:ns:admin".to_owned(), ..claims(600) }).unwrap(),
            "unexpected subject",
        ),
    ];
    for (name, token, want) in rows {
        let error = tokens.authenticate(&token, &[]).unwrap_err().to_string();
        assert!(error.contains(want), "{name}: {error}");
    }
}

#[test]
fn token_ends_with_its_account() {
    let tokens = tokens(Arc::new(FakeObjects::default()));
    let token = tokens.sign(&claims(600)).unwrap();
    let error = tokens.authenticate(&token, &[]).unwrap_err().to_string();
    assert!(error.contains("service account ns/sa has been deleted"), "{error}");
}

#[test]
fn key_set_names_the_key() {
    let tokens = tokens(objects());
    let key = &tokens.key_set()["keys"][0];
    let header = jsonwebtoken::decode_header(&tokens.sign(&claims(1)).unwrap()).unwrap();
    assert_eq!(key["kid"].as_str(), header.kid.as_deref());
    assert_eq!(key["x"].as_str().map(str::len), Some(43));
}
