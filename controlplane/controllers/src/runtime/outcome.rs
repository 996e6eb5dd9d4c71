//! Telling API errors apart: what is a race that the next pass settles, what is worth a warning.

use kube::Error;

/// The status code of an API error; 0 for errors of another sort.
pub fn code(error: &Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        _ => 0,
    }
}

fn reason(error: &Error) -> &str {
    match error {
        Error::Api(status) => &status.reason,
        _ => "",
    }
}

/// The object is not there.
pub fn not_found(error: &Error) -> bool {
    code(error) == 404
}

/// An object of that name is there already.
pub fn already_exists(error: &Error) -> bool {
    code(error) == 409 && reason(error) == "AlreadyExists"
}

/// Somebody else wrote in between, or a precondition does not hold.
pub fn conflict(error: &Error) -> bool {
    code(error) == 409 && reason(error) != "AlreadyExists"
}

/// The object is malformed: another try changes nothing.
pub fn invalid(error: &Error) -> bool {
    code(error) == 422
}

/// The watch or list asked for a revision that is gone.
pub fn expired(error: &Error) -> bool {
    code(error) == 410
}

/// The namespace is going away: nothing can be created in it.
pub fn namespace_terminating(error: &Error) -> bool {
    match error {
        Error::Api(status) => {
            status.code == 403
                && status
                    .details
                    .as_ref()
                    .is_some_and(|d| d.causes.iter().any(|c| c.reason == "NamespaceTerminating"))
        }
        _ => false,
    }
}

/// The text for users: the server's own message where there is one.
pub fn message(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// `Ok` if the object was gone already.
pub fn gone_is_fine<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
