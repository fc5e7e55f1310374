"""Mixtures of experts: conversion of a dense model, routing statistics, the moe stage."""
