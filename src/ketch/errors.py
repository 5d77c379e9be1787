"""Every error that Ketch raises on purpose.

KetchError                      500  error
  RequestError                  400  bad-request            the caller sent something wrong
    UndecodableBody             400  undecodable-body       bytes -> columns
    Unauthorized                401  unauthorized           no key, or not a known one
    Forbidden                   403  forbidden              the key does not open this
    HostNotAllowed              403  host-not-allowed       a name this server does not answer to
    NoSuchRoute                 404  no-such-route
    NoSuchModel                 404  no-such-model          no model of that name or version is served here
    MethodNotAllowed            405  method-not-allowed
    NotAcceptable               406  not-acceptable         no way to write the answer as asked
    SlowRequest                 408  slow-request           it took too long to arrive
    BodyTooLarge                413  body-too-large
    TooManyRows                 413  too-many-rows
    UnsupportedMediaType        415  unsupported-media-type
    RowsRefused                 422  rows-refused           columns -> checked columns
    NotAnswerable               422  not-answerable         the model's answer is not a number
    TooManyRequests             429  rate-limited           the caller's own share is used up
    HeadersTooLarge             431  headers-too-large
  NotNow                        503  not-now                ask again: nothing was done
    NotReady                    503  not-ready              the model does not give its golden answers
    Busy                        503  busy                   more is waiting than can be answered in time
    DeadlinePassed              504  deadline-passed        the model took longer than a request may
  UsageError                    400  usage                  a person asked for something that cannot be done
    SettingError                400  setting                a flag, variable or settings file
    InputError                  400  input                  a table or file given to a verb
    ServiceError                502  service                the service called could not be reached or failed
  ModelError                    400  model                  the object given is not a usable model
    NotAModel                   400  not-a-model
    NotFitted                   400  not-fitted
    UnsupportedModel            400  unsupported-model      a model that Ketch cannot serve
    SecretFound                 400  secret-found           code that would travel holds a secret
    ContractError               400  contract               contract and model contradict each other
    AnswersDiffer               500  answers-differ         golden predictions are not reproduced
    NotProved                   400  not-proved             notebook and script were not seen to make the same model
  BundleError                   400  bundle                 the bundle cannot be used
    CorruptBundle               400  corrupt-bundle
    UnknownFormat               400  unknown-format         written by a newer Ketch
  TrustError                    403  untrusted              a file that must not be opened
    BadSignature                403  bad-signature          missing, changed, or not by a trusted key
  StoreError                    400  store
    NoSuchVersion               404  no-such-version
  LogError                      400  log                    the prediction log cannot be opened
  LockError                     400  lock                   an environment cannot be resolved or made
  ImageError                    400  image                  an image cannot be composed, built or run
    NoEngine                    501  no-engine              docker, podman and buildah are missing, or do not answer
  NotInstalled                  501  not-installed          an extra is missing
  DeployError                   502  deploy                 what was asked of a cloud did not come about
    CloudRefused                502  cloud-refused          it said no, or could not be asked
      NoCredentials             401  no-credentials         nobody is signed in
    NotSettled                  504  not-settled            it was not so in time
    NotGiven                    502  not-given              a step needs what no earlier one gave
"""

from collections.abc import Sequence


class KetchError(Exception):
    """Root of the tree: a stable code for programs, a status for HTTP, a hint for people."""

    status = 500
    code = "error"

    retry_after = 0.0  # seconds after which asking again may help; 0 where it does not

    def __init__(self, message: str, *, hint: str = "", errors: Sequence[dict[str, object]] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.errors = list(errors)


class KetchWarning(UserWarning):
    """Something that a person should know and that stops nothing."""


class RequestError(KetchError):
    """The caller sent something wrong."""

    status = 400
    code = "bad-request"


class UndecodableBody(RequestError):
    """The body is not what its content type says."""

    code = "undecodable-body"


class Unauthorized(RequestError):
    """No key was given, or one that is not known."""

    status = 401
    code = "unauthorized"


class Forbidden(RequestError):
    """The key is known and does not open this."""

    status = 403
    code = "forbidden"


class HostNotAllowed(RequestError):
    """The Host header names a host that this server does not answer to."""

    status = 403
    code = "host-not-allowed"


class NoSuchRoute(RequestError):
    """Nothing stands at this path."""

    status = 404
    code = "no-such-route"


class NoSuchModel(RequestError):
    """No model of that name, or no such version of it, is served here."""

    status = 404
    code = "no-such-model"


class MethodNotAllowed(RequestError):
    """The path exists, for other methods."""

    status = 405
    code = "method-not-allowed"


class NotAcceptable(RequestError):
    """The answer cannot be written in any of the forms asked for."""

    status = 406
    code = "not-acceptable"


class SlowRequest(RequestError):
    """The request took longer to arrive than this server waits."""

    status = 408
    code = "slow-request"


class BodyTooLarge(RequestError):
    """The body has more bytes than this server reads."""

    status = 413
    code = "body-too-large"


class TooManyRows(RequestError):
    """The body has more rows than this server answers at once."""

    status = 413
    code = "too-many-rows"


class UnsupportedMediaType(RequestError):
    """The content type is not one that can be read."""

    status = 415
    code = "unsupported-media-type"


class RowsRefused(RequestError):
    """One or more rows break the contract: the errors say which, where and why."""

    status = 422
    code = "rows-refused"


class NotAnswerable(RequestError):
    """The model answered something that is not a finite number."""

    status = 422
    code = "not-answerable"


class TooManyRequests(RequestError):
    """The caller has asked more often than its share allows."""

    status = 429
    code = "rate-limited"

    def __init__(
        self, message: str, *, hint: str = "", errors: Sequence[dict[str, object]] = (), retry_after: float = 1.0
    ) -> None:
        super().__init__(message, hint=hint, errors=errors)
        self.retry_after = retry_after


class HeadersTooLarge(RequestError):
    """The headers have more bytes than this server reads."""

    status = 431
    code = "headers-too-large"


class NotNow(KetchError):
    """The service cannot answer at this moment; nothing was done, so asking again is safe."""

    status = 503
    code = "not-now"
    retry_after = 1.0


class NotReady(NotNow):
    """The model does not give the answers it must give."""

    code = "not-ready"


class Busy(NotNow):
    """More questions are waiting than can be answered in time."""

    code = "busy"


class DeadlinePassed(NotNow):
    """The model took longer over this request than a request may take."""

    status = 504
    code = "deadline-passed"


class UsageError(KetchError):
    """A person asked for something that cannot be done as asked."""

    status = 400
    code = "usage"


class SettingError(UsageError):
    """A flag, an environment variable or a line of a settings file is not usable."""

    code = "setting"


class InputError(UsageError):
    """A file or table given to a verb cannot be used."""

    code = "input"


class ServiceError(UsageError):
    """The service called could not be reached, or failed."""

    status = 502
    code = "service"


class ModelError(KetchError):
    """The object given is not a usable model."""

    status = 400
    code = "model"


class NotAModel(ModelError):
    """The object has no `predict`."""

    code = "not-a-model"


class NotFitted(ModelError):
    """The estimator was never fitted."""

    code = "not-fitted"


class UnsupportedModel(ModelError):
    """A model of a kind that Ketch cannot serve."""

    code = "unsupported-model"


class SecretFound(ModelError):
    """Code that would travel with the model holds what looks like a secret."""

    code = "secret-found"


class ContractError(ModelError):
    """Contract and model contradict each other."""

    code = "contract"


class AnswersDiffer(ModelError):
    """The golden predictions are not reproduced."""

    status = 500
    code = "answers-differ"


class NotProved(ModelError):
    """A script that was not seen to make the same model as its notebook."""

    code = "not-proved"


class BundleError(KetchError):
    """The bundle cannot be used."""

    status = 400
    code = "bundle"


class CorruptBundle(BundleError):
    """A member is missing, added or changed."""

    code = "corrupt-bundle"


class UnknownFormat(BundleError):
    """The bundle was written in a format that this Ketch does not know."""

    code = "unknown-format"


class TrustError(KetchError):
    """A file that must not be opened here as it stands."""

    status = 403
    code = "untrusted"


class BadSignature(TrustError):
    """A signature that is missing where one is required, was changed, or is not by a trusted key."""

    code = "bad-signature"


class StoreError(KetchError):
    """The store cannot do what was asked."""

    status = 400
    code = "store"


class NoSuchVersion(StoreError):
    """No such model, version or alias in the store."""

    status = 404
    code = "no-such-version"


class LogError(KetchError):
    """The prediction log cannot be opened."""

    status = 400
    code = "log"


class LockError(KetchError):
    """An environment cannot be resolved, or made."""

    status = 400
    code = "lock"


class ImageError(KetchError):
    """An image cannot be composed or built, or does not run."""

    status = 400
    code = "image"


class NoEngine(ImageError):
    """No container engine is on this machine, or none that answers."""

    status = 501
    code = "no-engine"


class NotInstalled(KetchError):
    """An optional library is missing."""

    status = 501
    code = "not-installed"


class DeployError(KetchError):
    """What was asked of a cloud did not come about."""

    status = 502
    code = "deploy"


class CloudRefused(DeployError):
    """A cloud said no, or could not be asked; `reason` is its own code for that."""

    code = "cloud-refused"

    def __init__(
        self, message: str, *, hint: str = "", errors: Sequence[dict[str, object]] = (), reason: str = ""
    ) -> None:
        super().__init__(message, hint=hint, errors=errors)
        self.reason = reason


class NoCredentials(CloudRefused):
    """Nobody is signed in to the cloud."""

    status = 401
    code = "no-credentials"


class NotSettled(DeployError):
    """What was begun was not done in time."""

    status = 504
    code = "not-settled"


class NotGiven(DeployError):
    """A step needs a value that no earlier one gave."""

    code = "not-given"
