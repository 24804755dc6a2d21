"""One key for each algorithm, the same in every run, so that a seed always gives the same mutants. Tests only."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256, sha512

from jotgate import Key, KeyRefused
from jotgate.core.algorithms import ALGORITHMS
from jotgate.core.encoding import encode_segment
from jotgate.core.jwk import find_mldsa

RSA_JWK = {
    "kty": "RSA",
    "n": (
        "saB-ZBuZwZyiCZ0bfeKfV2W0lK-rYFjRgJMON8g5fdtsNwV2nhvUYl1dXz6GUhfPmcTE17cfNvAMQSpcgay1pftnpd6s8AuGArGU"
        "QWJvkLV2DXJ9Fpum-VzPAdbYVh7L7vmeqgB5qNSmvt05cLDFlJNm4h-RruIf11yIs2TEccC3Y8dghGxO0khMAg-Z4ULY2GKjlTI5"
        "7YN8exWDc2014nGebKM__D47tLvTHgcwL_BieJxuFX0hfIh5kLeRoTNicrBbfAnnLH0ll70OeEYZWDdbbWUBtZyseBr__UuXfXU0"
        "FbqWmSlVg0LM1sZCdJFlEX9-RSBD-9KhK6KalxG2P483LPtZgiw72ez9nzAp2X2szkhx7qF4-dDtRSJG1B9tXJ8nw9M4AHbO2jcS"
        "qNpKV1x4ny8a1FlYKE0VSxyhd2Ez6_VXwVTFbQG_Ri-QfZtzT5XHOMF6XhSAQ5V1ROBSnd3uZiiMjsbYqulq7NdlafDrRvUk8tPW"
        "af46TyIXRzDv"
    ),
    "e": "AQAB",
    "d": (
        "HtXeuyAze_HmC0czy5G42aI1TA6G8K3aiLh-ol5m5Jtf2Nlg8yefogfVOsCO7tdlWatYBJ6sk4vuhK2G65gA3LSdFKVoXi-R7wvG"
        "0eb1uShXOxRh9LfGr8lVwlr6qVClVHIPAjIc7Jsl60JaQ17cneNM2_pg_vwQTQGqVYIrvBeZfn_RGIv4zvZwA3eT3hANttrAzRiw"
        "B7RourFMZZBS52GUAAYDCJYBJWnpx2-2BMx1O7zkO2TCmGzUtbO4W0ShCzzHXgUnVjMcOas2o1poN6u4su7NpWXo2dpBVjMzQnMd"
        "V7Ye8e7e32Xj37u8VzipjtHgsuL9to8j5n1qNlcS_HvPy3ik_dWobjQUhpDLJTsbmXN2UTdRX9MZ8wf6RtkxeKHpwFihINLvKFG3"
        "ZltrOdVaEdvkrgcxtDcpjgdSsMUU6MYjcClPhu_kui-7JknA1CroHA9GfpwU57Ey1NGJsjKrgBgMi0BJ5V9XJER7sfPp5uzTpKsj"
        "UBhJDyiQ_aUx"
    ),
    "p": (
        "6AOWqApCAw69be2h4GqkU1FX0lTvqH3wNcthRIG1ni3ZVFN4usVI4JVB1f1t2nyX8nJpD9QQP8MjHnjc5_riV5TKExaOExnYyRmm"
        "ChCD4wKs8Jq2OO-0SP8eOdhi35AFsGCEBEUsMyL2eKRP0MutxhPxtSKk8FB4fo66L8svBSXBfk3A_N7I2hFaKnwlu47k43RNDcWr"
        "rS-EF0460_jcy0jmmN-pHiKaiRoY-S6-yTHJoY4az7YB0GMV_VkGOLTJ"
    ),
    "q": (
        "w_2DZe6O96XXU22gJ2qCUNex3YskEgkPkKizB81KzgL6HYN_tEWndmZ0Wjyk7A3l87-TbLQUBH8Lb9kDG1Cr_5Y-OV0OEpkwDs-5"
        "uD3Iy23oS1PG_YFJZs0iLy4jnbdWh9Qb1UhkpoLObgT8OKNEIXuQC43mVSzcE3s3ajvaFhIvtusoAhNkUrAMULoGYNJ0aZJQ8iLV"
        "yBShuMxKZOzN1QELbhF_b7kH43PoRVkKkeeGY5015DrKVYaBJp0HGyv3"
    ),
    "dp": (
        "KM3owyj6rxr6icjPPW7D87tMnLs_YvyzMGLSen_tdyJNJJ2BkCd-R7E4YPAvT8u11Xf1rkj3ip9BH-zVvR7Mi-apG25OEmHrVILk"
        "RsTczSH9VFuBTMYriOMFZ9r8mKD1vy1aSn335g5yFomfV_NaXonHarnrFDCy4F8ts5YicN9RBmuaU17DKEcA-pPW9wOMkcw0eQWY"
        "yd6fdpHVms4b1sy9cYl0bs5bK12hosFr4GqXMYiSgpFaBFJI3cO4amSx"
    ),
    "dq": (
        "GS4lB5-StraT56AaB3Zjr8dGjtQlmjuXyFokRkhV6Anx4IDYk2yvi0K2iDFqbvmKJbrjUgAA4mMAMSqMf6HptziyXeRavoD37684"
        "iTdG6PwB8EufMUq_B3orfixLXyQC9giGWuymIc6EfxYc4Zn4UuTxKMreYOsWi1o1UGzIJDXJ85Ja3YloRkdgDa8Yyq-_TSEDTVi0"
        "ZrRf4sI8fKL__vHXahjNaqk3Hj3yBZbfCMfaOEomdmAnRr21MiTSmOcZ"
    ),
    "qi": (
        "QYNjNEHo9npDZikpKqC4jPcE5jX7SixLVu4hP3pgKZVSJMCY0f1XobkMEzqt_Xk8L054gmkf4oeZE2cX-sMZArkK0SuSa_8dOzE6"
        "HU-FWh1xNK-whuV9EevrbJkxwG7UpYsoRCW0jiTUsHhOTtHvoygRI3MuZRtMQ8dNVJF8Wjq0xMwHCtZS9lP3EC9Snf6ycOkJ1SQA"
        "dPOxn0N-B_vv8Eeho7KqTIBgEk4juubwm51EnUYxao39UtRObOgr8Wbw"
    ),
    "alg": "RS256",
}
"""Made for these tests with generate_key("RS256"), and used nowhere else: it is public by being here."""

ES256_JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "fMSawiyuV3XKchghgNbbENVlCKlU8hC9wd2GSdzpUgQ",
    "y": "ydr7y51nU5Mv2a4kuUUdjqyfFsxWz0tsVuGE2w-hl2o",
    "d": "X92K8ntArW7qjzNnVsktfaI-M4kx0_h4MM9FMsLlGLw",
    "alg": "ES256",
}
ED25519_JWK = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": "C-h-xFen-dpnYVHTo6zuFmT-_dVH_BaBEEP6FEzd2uw",
    "d": "U3a9UNGGwgEcTVFYFSKOv4qcf9H6NqZdNOWQFm061Qw",
    "alg": "Ed25519",
}

ES384_JWK = {
    "kty": "EC",
    "crv": "P-384",
    "x": "MtRy0xrlUQIhnjuXLjSBNqFA7qc0wgboFvsRjN8GpLCrDs2-15py44j_IYeMh28_",
    "y": "OXY2zGbuSpx8l8oxSGSrFOwhrk3FA_KffTFPSrP9lJm_PglFGKpOSboa2SCAfVJU",
    "d": "psSkVp2pxCNVsxzv3GitGti4bDD4aQs41_-3RH6cdsV_sSZTrT7RzD5Gg6Ai-p5p",
    "alg": "ES384",
}
ES512_JWK = {
    "kty": "EC",
    "crv": "P-521",
    "x": "AUQGWZZHbgxitTjQ_9nOxHO8sTNpivGcjKSS6jsHiqbVCP_0nJsLa-ORMvw-5hvSH_bjm_NvkaAZnJnAA2lIZ5Qv",
    "y": "AIeMmJNjrZeG-o2q3gK7d0bi3uALmdl2v5Omu7gxf8XNB1-XG_pk3_Oe6xrSaHqQ6iyLKFnlYEY9B9YGYY4QLXD7",
    "d": "AGO8zMBvnPKAQJjfVXlgJqQ-LQ01U3qxDvqk_TBDdBga2b7z2wBKrDntpC61h96HLVbPPU0p1dr6p7vpW_20gS-L",
    "alg": "ES512",
}


def _mldsa_keys() -> dict[str, Key]:
    """ML-DSA's keys, whose public half is computed from a seed; none where the installed cryptography has none."""
    keys = {}
    for name in ("ML-DSA-44", "ML-DSA-65", "ML-DSA-87"):
        seed = sha256(f"tests/fuzz {name}".encode()).digest()
        try:
            private = find_mldsa(ALGORITHMS[name])[1].from_seed_bytes(seed)
        except KeyRefused:
            continue
        public = encode_segment(private.public_key().public_bytes_raw())
        jwk = {"kty": "AKP", "alg": name, "pub": public, "priv": encode_segment(seed)}
        keys[name] = Key.from_jwk(jwk, kid=f"key-{name.lower()}")
    return keys


KEYS: Mapping[str, Key] = {
    "HS256": Key.from_secret(sha256(b"tests/fuzz").digest(), "HS256", kid="key-h"),
    "RS256": Key.from_jwk(RSA_JWK, kid="key-r"),
    "ES256": Key.from_jwk(ES256_JWK, kid="key-e"),
    "Ed25519": Key.from_jwk(ED25519_JWK, kid="key-d"),
    "ES384": Key.from_jwk(ES384_JWK, kid="key-e3"),
    "ES512": Key.from_jwk(ES512_JWK, kid="key-e5"),
    **{
        name: Key.from_secret(sha512(f"tests/fuzz {name}".encode()).digest(), name, kid=f"key-h{name[2]}")
        for name in ("HS384", "HS512")
    },
    **{
        name: Key.from_jwk(RSA_JWK | {"alg": name}, kid=f"key-{name[0].lower()}{name[2]}")
        for name in ("RS384", "RS512", "PS256", "PS384", "PS512")
    },
    **_mldsa_keys(),
}
"""One key for each algorithm, each under a name of its own."""

KINDS = ("HS256", "RS256", "ES256", "Ed25519")
"""One algorithm for each type of key: those that get most of the mutants."""
