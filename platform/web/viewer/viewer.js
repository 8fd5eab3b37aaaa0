// Shows this shop's own description. Nothing is fetched from elsewhere: no validator badge, no fonts.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  requestSnippetsEnabled: false,
});
