"""The part of the report's page about suspicious clients, as a jinja2 template."""

SUSPICION = """
{% if suspicion %}
<h2>Clients under suspicion</h2>
<dl class="plain">
{% for what, value in suspicion_rates %}<dt>{{ what }}</dt><dd>{{ value }}</dd>{% endfor %}
</dl>
{% if reputations %}<figure>{{ reputations }}<figcaption>Reputation after each round. Tinted: the
client was isolated. Marks above: it was flagged.{% if suspicion_more %} Of more than
{{ most_charts }} clients, those that attack or were flagged come first.{% endif %}
</figcaption></figure>{% endif %}
{% if audit_list %}
<div class="scroll"><table class="small">
<thead><tr><th class="n">round</th><th class="n">client</th><th>reason</th><th>evidence</th>
<th>its update</th></tr></thead>
<tbody>{% for cells in audit_list %}<tr>
{% for cell in cells %}<td{% if loop.index < 3 %} class="n"{% endif %}>{{ cell }}</td>
{% endfor %}</tr>{% endfor %}</tbody></table></div>
<p class="caption">What the strategy had against single clients.
{%- if suspicion.flags | length > audit_list | length %} The first {{ audit_list | length }} entries
of {{ suspicion.flags | length }}; result.json has all.{% endif %} Who attacks is known to the
evaluation alone.</p>
{% else %}<p>Nobody was flagged.</p>{% endif %}
{% endif %}
"""
