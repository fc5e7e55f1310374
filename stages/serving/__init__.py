"""Deployment of any servable artifact, and the HTTP application that serves a Checkpoint.

`deploy` is the stage, `deployment` the artifact that it leaves, and `trial` how a served application is asked and
measured, with `language_model` for completions and `client` for HTTP. The application itself: `http` has its routes,
`completions` the endpoint, `service` the model behind its engine, `request`, `answer` and `errors` the shapes of what
goes over the wire, and `metrics` what Prometheus collects.
"""
