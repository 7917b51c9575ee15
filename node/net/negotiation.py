"""Association requests and what is answered to them, without I/O (PS3.7 annex D, PS3.8 9.3.2, 9.3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pydicom.uid import UID
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import (
    PresentationContext,
    build_context,
    build_role,
    negotiate_as_acceptor,
    negotiate_as_requestor,
)

from node.net.pdus import APPLICATION_CONTEXT, user_information


@dataclass(frozen=True)
class Entity:
    """What we are to whoever calls: how we answer, and how long and of how many we bear it."""

    implementation_class_uid: str
    implementation_version_name: str
    maximum_pdu_bytes: int
    """The longest P-DATA-TF that a peer may send; 0: any."""
    maximum_associations: int
    acse_timeout_seconds: float
    network_timeout_seconds: float
    contexts: tuple[PresentationContext, ...]
    """What is offered; negotiation only reads it, so all associations share it."""


@dataclass(frozen=True)
class Accepted:
    """The answer that accepts a request, and the presentation contexts that are agreed upon, by their number."""

    answer: A_ASSOCIATE
    contexts: Mapping[int, PresentationContext]
    refused: frozenset[str] = frozenset()
    """The abstract syntaxes that were proposed and can be used in none of the contexts."""


def offered(sop_class: str, syntaxes: Sequence[str] = (), in_both_roles: bool = False) -> PresentationContext:
    """A SOP class that we offer as SCP, or `in_both_roles`; no `syntaxes`: the uncompressed ones."""
    return _offered(sop_class, tuple(syntaxes), in_both_roles)


@cache  # 200 classes in 40 syntaxes take a tenth of a second, and what is offered is only read
def _offered(sop_class: str, syntaxes: tuple[str, ...], in_both_roles: bool) -> PresentationContext:
    context = build_context(sop_class, list(syntaxes)) if syntaxes else build_context(sop_class)
    if in_both_roles:
        context.scu_role = context.scp_role = True
    return context


def accept(request: A_ASSOCIATE, entity: Entity) -> Accepted:
    """The answer to a request that is not rejected; contexts that we do not offer are refused one by one.

    Of extended negotiation the roles are answered (PS3.7 D.3.3.4).  No answer to the rest says that user identity,
    asynchronous operations and extended negotiation of SOP classes are not supported (D.3.3.3, D.3.3.5 to D.3.3.7).
    """
    roles = _roles(request)
    contexts, roles_answered = negotiate_as_acceptor(
        request.presentation_context_definition_list, list(entity.contexts), roles
    )
    accepted = {context.context_id: context for context in contexts if context.result == 0x00}
    answer = A_ASSOCIATE()
    answer.application_context_name = APPLICATION_CONTEXT
    answer.calling_ae_title, answer.called_ae_title = request.calling_ae_title, request.called_ae_title
    answer.result, answer.result_source = 0x00, 0x01
    refused = [context for context in contexts if context.result != 0x00]
    answer.presentation_context_definition_results_list = [*accepted.values(), *refused]
    information = user_information(
        entity.maximum_pdu_bytes, entity.implementation_class_uid, entity.implementation_version_name
    )
    answer.user_information = [*information, *roles_answered]
    usable = {context.abstract_syntax for context in accepted.values()}
    return Accepted(answer, accepted, frozenset(str(each.abstract_syntax) for each in refused) - usable)


def request(
    ae_titles: tuple[str, str],
    contexts: Sequence[tuple[str, str]],
    scp_roles: Sequence[str],
    information: Sequence[object],
) -> A_ASSOCIATE:
    """A request by the first for an association with the second, for these (SOP class, transfer syntax) pairs.

    The first would be SCP of the SOP classes `scp_roles`, and gives this `pdus.user_information` of itself.  Raises
    ValueError when there are more than 128 pairs.
    """
    proposed = [build_context(UID(sop_class), UID(syntax)) for sop_class, syntax in contexts]
    for number, context in enumerate(proposed):
        context.context_id = 2 * number + 1
    primitive = A_ASSOCIATE()
    primitive.application_context_name = APPLICATION_CONTEXT
    primitive.calling_ae_title, primitive.called_ae_title = ae_titles
    primitive.presentation_context_definition_list = proposed
    primitive.user_information = [*information, *(build_role(UID(sop_class), scp_role=True) for sop_class in scp_roles)]
    return primitive


def agreed(request: A_ASSOCIATE, answer: A_ASSOCIATE) -> dict[int, PresentationContext]:
    """The presentation contexts that the answer to our request accepts, by their number, each with our roles in it."""
    roles = {sop_class: (bool(scu), bool(scp)) for sop_class, (scu, scp) in _roles(request).items()}
    for context in request.presentation_context_definition_list:
        if context.abstract_syntax in roles:
            context.scu_role, context.scp_role = roles[context.abstract_syntax]
    results = negotiate_as_requestor(
        request.presentation_context_definition_list,
        answer.presentation_context_definition_results_list,
        _roles(answer),
    )
    return {context.context_id: context for context in results if context.result == 0x00}


def _roles(primitive: A_ASSOCIATE) -> dict[UID, tuple[bool | None, bool | None]]:
    """By SOP class: whether the requestor is SCU, and SCP (PS3.7 D.3.3.4)."""
    return {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in primitive.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
